variable "bucket" {
  description = "Name of the bucket that is made. It holds this one destination and nothing else."
  type        = string
  nullable    = false
}

# classes and prefix are what "archiver lifecycle export --format terraform" writes: nothing else says for how long
# backups are kept.
variable "classes" {
  description = "Retention classes by name: days that a backup is kept (keep) and that its data outlive it (lease); storage_class is set by archiver on each object."
  type = map(object({
    keep          = number
    lease         = number
    storage_class = optional(string)
  }))
  nullable = false

  validation {
    condition     = length(var.classes) > 0
    error_message = "Expected at least one class: run archiver lifecycle export --format terraform."
  }
  validation {
    condition     = alltrue([for name in keys(var.classes) : can(regex("^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$", name))])
    error_message = "A class is named with up to 63 of a-z 0-9 - _, beginning and ending with a letter or digit."
  }
  validation {
    condition     = length(setintersection(keys(var.classes), ["held", "hold", "vault"])) == 0
    error_message = "No class may be called held, hold or vault: what lies there has no end."
  }
  validation {
    condition = alltrue([
      for days in flatten([for class in values(var.classes) : [class.keep, class.lease]]) :
      days >= 1 && days <= 36500 && floor(days) == days
    ])
    error_message = "keep and lease are whole days, from 1 to 36500."
  }
  validation {
    condition = alltrue([
      for class in values(var.classes) :
      class.storage_class == null ? true : can(regex("^[A-Z0-9_-]{1,64}$", class.storage_class))
    ])
    error_message = "A storage class is a name such as STANDARD_IA."
  }
}

variable "prefix" {
  description = "Prefix of the destination in the bucket, without a slash at either end; empty for the whole bucket."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition = var.prefix == "" || alltrue([
      for segment in split("/", var.prefix) :
      can(regex("^[A-Za-z0-9._-]{1,255}$", segment)) && segment != "." && segment != ".."
    ])
    error_message = "A prefix consists of segments of A-Z a-z 0-9 . _ -, joined by single slashes."
  }
}

variable "object_lock" {
  description = "Object Lock: null, governance or compliance. It can be neither switched off nor, here, added to a bucket that exists. The bucket has no default retention: archiver sets it on each object."
  type        = string
  default     = null

  validation {
    condition     = var.object_lock == null ? true : contains(["governance", "compliance"], var.object_lock)
    error_message = "Expected null, \"governance\" or \"compliance\"."
  }
}

variable "policy_statements" {
  description = "Further statements of the bucket's policy, as a list of objects (Sid, Effect, Principal, Action, Resource, Condition): the module owns that policy and removes what others have put there."
  type        = any
  default     = []
  nullable    = false

  validation {
    condition = alltrue([
      for statement in var.policy_statements :
      can(statement.Sid) && can(statement.Effect) && can(statement.Principal) && can(statement.Action) && can(statement.Resource)
    ])
    error_message = "A list is expected, and in each statement at least Sid, Effect, Principal, Action and Resource."
  }
}

variable "create_kms_key" {
  description = "Whether a KMS key is made for the bucket. Without it and without kms_key_arn the bucket uses SSE-S3."
  type        = bool
  default     = false
  nullable    = false
}

variable "kms_key_arn" {
  description = "ARN of a KMS key that exists, for the bucket."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || !var.create_kms_key
    error_message = "Give kms_key_arn or create_kms_key, not both."
  }
}

variable "policies" {
  description = "Which of the files in docs/iam/ become IAM policies, without .json; null: all of them."
  type        = set(string)
  default     = null

  validation {
    condition     = alltrue([for role in coalesce(var.policies, []) : fileexists("${path.module}/../docs/iam/${role}.json")])
    error_message = "Each must be the name of a file in docs/iam/, without .json, such as backup-host."
  }
}

variable "alarms" {
  description = "By source: how many hours (1 to 168) may pass without a backup of it in the class, before its alarm goes off."
  type = map(object({
    class = optional(string, "daily")
    hours = optional(number, 26)
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for alarm in values(var.alarms) : alarm.hours >= 1 && alarm.hours <= 168 && floor(alarm.hours) == alarm.hours])
    error_message = "hours are whole, from 1 to 168: CloudWatch looks back no further than a week."
  }
  validation {
    condition     = alltrue([for alarm in values(var.alarms) : contains(keys(var.classes), alarm.class)])
    error_message = "An alarm names one of classes."
  }
}

variable "alarm_actions" {
  description = "ARNs that CloudWatch calls when an alarm goes off and when it ends, such as an SNS topic in the bucket's region."
  type        = list(string)
  default     = []
  nullable    = false
}
