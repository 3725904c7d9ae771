# An alarm for each source that has had no new backup for too long. A backup exists when its manifest.json does: S3
# tells EventBridge of every object, a rule picks the manifests of one source and class, and the alarm counts how often
# EventBridge calls the rule's target (AWS/Events, Invocations). The target, a log group, keeps who created each
# manifest, and when.
locals {
  alarm_rules = {
    for source, alarm in var.alarms : source => {
      # At most 64 characters.
      name    = "archiver-${substr(source, 0, 45)}-${substr(sha256("${var.bucket}/${local.base}${alarm.class}/${source}"), 0, 8)}"
      pattern = "${local.base}${alarm.class}/backups/${source}/*/manifest.json"
      hours   = alarm.hours
    }
  }
}

resource "aws_s3_bucket_notification" "this" {
  count = length(var.alarms) > 0 ? 1 : 0

  bucket      = aws_s3_bucket.this.id
  eventbridge = true
}

resource "aws_cloudwatch_event_rule" "backup" {
  for_each = local.alarm_rules

  name        = each.value.name
  description = "archiver: a backup of ${each.key} in s3://${var.bucket}/${var.prefix}"

  event_pattern = jsonencode({
    source      = ["aws.s3"]
    detail-type = ["Object Created"]
    detail = {
      bucket = { name = [var.bucket] }
      object = { key = [{ wildcard = each.value.pattern }] }
    }
  })
}

resource "aws_cloudwatch_log_group" "backups" {
  count = length(var.alarms) > 0 ? 1 : 0

  name              = "/aws/events/archiver-${var.bucket}"
  retention_in_days = 400
}

resource "aws_cloudwatch_log_resource_policy" "backups" {
  count = length(var.alarms) > 0 ? 1 : 0

  policy_name = "archiver-${var.bucket}"

  policy_document = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "LetEventBridgeWrite"
      Effect    = "Allow"
      Principal = { Service = ["delivery.logs.amazonaws.com", "events.amazonaws.com"] }
      Action    = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource  = "${aws_cloudwatch_log_group.backups[0].arn}:*"
    }]
  })
}

resource "aws_cloudwatch_event_target" "backup" {
  for_each = local.alarm_rules

  rule      = aws_cloudwatch_event_rule.backup[each.key].name
  target_id = "log"
  arn       = aws_cloudwatch_log_group.backups[0].arn
}

resource "aws_cloudwatch_metric_alarm" "missing" {
  for_each = local.alarm_rules

  alarm_name        = "archiver-${var.bucket}-${each.key}-no-backup"
  alarm_description = "No backup of ${each.key} was completed in s3://${var.bucket}/${var.prefix} for ${each.value.hours} hours."

  namespace           = "AWS/Events"
  metric_name         = "Invocations"
  dimensions          = { RuleName = aws_cloudwatch_event_rule.backup[each.key].name }
  statistic           = "Sum"
  period              = 3600
  evaluation_periods  = each.value.hours
  datapoints_to_alarm = each.value.hours
  comparison_operator = "LessThanThreshold"
  threshold           = 1

  # EventBridge sends no zeros: an hour without a backup is an hour without data.
  treat_missing_data = "breaching"

  alarm_actions = var.alarm_actions
  ok_actions    = var.alarm_actions
}
