output "destination" {
  description = "url below [destination] in archiver.toml."
  value       = module.backups.destination
}

output "policies" {
  description = "By role: ARN of the IAM policy to attach."
  value       = module.backups.policies
}
