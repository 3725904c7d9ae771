output "destination" {
  description = "The destination's URL: url below [destination] in archiver.toml, or --to of archiver init."
  value       = "s3://${aws_s3_bucket.this.bucket}${var.prefix == "" ? "" : "/${var.prefix}"}?region=${aws_s3_bucket.this.region}${var.object_lock == null ? "" : "&object_lock=${var.object_lock}"}"
}

output "bucket" {
  description = "The bucket's name. It is there once the bucket keeps versions, which replication needs."
  value       = aws_s3_bucket.this.bucket
  depends_on  = [aws_s3_bucket_versioning.this]
}

output "bucket_arn" {
  description = "The bucket's ARN."
  value       = aws_s3_bucket.this.arn
  depends_on  = [aws_s3_bucket_versioning.this]
}

output "kms_key_arn" {
  description = "ARN of the bucket's KMS key; null with SSE-S3."
  value       = local.kms_key_arn
}

output "policies" {
  description = "By role: ARN of the IAM policy to attach."
  value       = { for role, policy in aws_iam_policy.role : role => policy.arn }
}

output "alarms" {
  description = "By source: name of the CloudWatch alarm on missing backups."
  value       = { for source, alarm in aws_cloudwatch_metric_alarm.missing : source => alarm.alarm_name }
}
