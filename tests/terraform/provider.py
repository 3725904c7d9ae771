"""What terraform/ uses of the AWS provider, so that a misspelt name fails without Terraform.

Written by hand, taken by version 5.100.0, and by the provider's upgrade guide the same in 6. test_terraform.py asks the
provider itself, where there is one.
"""

ARGUMENTS: dict[str, str] = {
    "aws_cloudwatch_event_rule": "name description event_pattern",
    "aws_cloudwatch_event_target": "rule target_id arn",
    "aws_cloudwatch_log_group": "name retention_in_days",
    "aws_cloudwatch_log_resource_policy": "policy_name policy_document",
    "aws_cloudwatch_metric_alarm": (
        "alarm_name alarm_description namespace metric_name dimensions statistic period evaluation_periods "
        "datapoints_to_alarm comparison_operator threshold treat_missing_data alarm_actions ok_actions"
    ),
    "aws_iam_policy": "name description policy",
    "aws_iam_role": "name description assume_role_policy",
    "aws_iam_role_policy": "name role policy",
    "aws_kms_alias": "name target_key_id",
    "aws_kms_key": "description enable_key_rotation deletion_window_in_days policy",
    "aws_s3_bucket": "bucket object_lock_enabled",
    "aws_s3_bucket_lifecycle_configuration": (
        "bucket rule rule.id rule.status rule.filter rule.filter.prefix rule.expiration rule.expiration.days "
        "rule.expiration.expired_object_delete_marker rule.abort_incomplete_multipart_upload "
        "rule.abort_incomplete_multipart_upload.days_after_initiation rule.noncurrent_version_expiration "
        "rule.noncurrent_version_expiration.noncurrent_days"
    ),
    "aws_s3_bucket_notification": "bucket eventbridge",
    "aws_s3_bucket_ownership_controls": "bucket rule rule.object_ownership",
    "aws_s3_bucket_policy": "bucket policy",
    "aws_s3_bucket_public_access_block": (
        "bucket block_public_acls block_public_policy ignore_public_acls restrict_public_buckets"
    ),
    "aws_s3_bucket_replication_configuration": (
        "bucket role rule rule.id rule.priority rule.status rule.filter rule.filter.prefix "
        "rule.delete_marker_replication rule.delete_marker_replication.status rule.source_selection_criteria "
        "rule.source_selection_criteria.sse_kms_encrypted_objects "
        "rule.source_selection_criteria.sse_kms_encrypted_objects.status rule.destination rule.destination.bucket "
        "rule.destination.encryption_configuration rule.destination.encryption_configuration.replica_kms_key_id "
        "rule.destination.replication_time rule.destination.replication_time.status "
        "rule.destination.replication_time.time rule.destination.replication_time.time.minutes "
        "rule.destination.metrics rule.destination.metrics.status rule.destination.metrics.event_threshold "
        "rule.destination.metrics.event_threshold.minutes"
    ),
    "aws_s3_bucket_server_side_encryption_configuration": (
        "bucket rule rule.bucket_key_enabled rule.apply_server_side_encryption_by_default "
        "rule.apply_server_side_encryption_by_default.sse_algorithm "
        "rule.apply_server_side_encryption_by_default.kms_master_key_id"
    ),
    "aws_s3_bucket_versioning": "bucket versioning_configuration versioning_configuration.status",
}
"""By type of resource: arguments, blocks, and what is in these."""

ATTRIBUTES: dict[str, str] = {
    "aws_cloudwatch_event_rule": "name",
    "aws_cloudwatch_log_group": "arn",
    "aws_iam_role": "arn id",
    "aws_kms_key": "arn key_id",
    "aws_s3_bucket": "arn bucket id region",
    "data.aws_caller_identity": "account_id",
    "data.aws_partition": "partition",
}
"""By type of resource or data source: what is read of it by name. In outputs.tf loops read
``arn`` of an aws_iam_policy and ``alarm_name`` of an aws_cloudwatch_metric_alarm too."""
