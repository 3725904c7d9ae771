variable "region" {
  description = "Region of the bucket."
  type        = string
  default     = "eu-central-1"
}

variable "bucket" {
  description = "Name of the bucket to make."
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
  description = "Prefix of the destination in the bucket."
  type        = string
}

variable "alarm_actions" {
  description = "ARNs to call when the source prod has had no backup for 26 hours."
  type        = list(string)
  default     = []
}
