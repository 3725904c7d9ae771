output "destination" {
  description = "The copy's URL, for --from of list, verify and restore: nothing but S3 writes to it."
  value       = module.replica.destination
}

output "bucket" {
  description = "The name of the bucket that holds the copies."
  value       = module.replica.bucket
}

output "kms_key_arn" {
  description = "ARN of its KMS key; null with SSE-S3."
  value       = module.replica.kms_key_arn
}

output "policies" {
  description = "By role: ARN of the IAM policy for the copy."
  value       = module.replica.policies
}
