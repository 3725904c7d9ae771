variable "bucket" {
  description = "Name of the bucket to copy from, in the region of the provider aws: output bucket of the module above."
  type        = string
  nullable    = false
}

variable "replica_bucket" {
  description = "Name of the bucket to make and copy to, in the region of the provider aws.replica."
  type        = string
  nullable    = false
}

variable "classes" {
  description = "As for the bucket to copy from."
  type = map(object({
    keep          = number
    lease         = number
    storage_class = optional(string)
  }))
  nullable = false
}

variable "prefix" {
  description = "As for the bucket to copy from."
  type        = string
  default     = ""
  nullable    = false
}

variable "object_lock" {
  description = "As for the bucket to copy from: S3 copies from a bucket with Object Lock only into one that has it too."
  type        = string
  default     = null
}

variable "kms" {
  description = "Where the bucket to copy from is encrypted with KMS: ARN of its key, and that of a key in the other region that exists already; null there: one is made."
  type = object({
    key_arn         = string
    replica_key_arn = optional(string)
  })
  default = null
}

variable "replication_time_control" {
  description = "Whether S3 is to promise, for a price per GB, that 99.9 % of the objects are copied within 15 minutes."
  type        = bool
  default     = false
  nullable    = false
}

variable "policy_statements" {
  description = "Further statements of the second bucket's policy, as for the bucket to copy from."
  type        = any
  default     = []
  nullable    = false
}

variable "policies" {
  description = "As for the bucket to copy from. The backup host does not write here."
  type        = set(string)
  default     = ["auditor", "restore-host"]
}
