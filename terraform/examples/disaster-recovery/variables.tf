variable "region" {
  description = "Region that backups are written to."
  type        = string
  default     = "eu-central-1"
}

variable "replica_region" {
  description = "Region that they are copied to."
  type        = string
  default     = "eu-west-1"
}

variable "bucket" {
  description = "Name of the bucket to make in the first region."
  type        = string
}

variable "replica_bucket" {
  description = "Name of the bucket to make in the second region."
  type        = string
}

# Both from archiver.auto.tfvars.json.
variable "classes" {
  description = "Retention classes by name."
  type = map(object({
    keep          = number
    lease         = number
    storage_class = optional(string)
  }))
}

variable "prefix" {
  description = "Prefix of the destination in both buckets."
  type        = string
}

variable "alarm_actions" {
  description = "ARNs to call when the source prod has had no backup for 26 hours."
  type        = list(string)
  default     = []
}
