output "destination" {
  description = "url below [destination] in archiver.toml."
  value       = module.backups.destination
}

output "policies" {
  description = "By role: ARN of the IAM policy to attach."
  value       = module.backups.policies
}

output "replica" {
  description = "The copy: --from of list, verify and restore when the first region is down."
  value       = module.replication.destination
}

output "replica_policies" {
  description = "By role: ARN of the IAM policy for the copy."
  value       = module.replication.policies
}
