# The same rules as "archiver lifecycle apply" sends (archiver/retention/policy.py), which tests/terraform proves.
# By prefix alone. What lies in held/ has no end, but versions that were deleted there have. No rule reaches vault/: old
# versions of its files stay, so that whoever deletes one, or creates another in its place, destroys nothing.
locals {
  base        = var.prefix == "" ? "" : "${var.prefix}/"
  rule_prefix = "archiver-${substr(sha256(local.base), 0, 8)}"

  expiring = merge([
    for name, class in var.classes : {
      "${name}-backups" = { prefix = "${local.base}${name}/backups/", days = class.keep }
      "${name}-data"    = { prefix = "${local.base}${name}/data/", days = class.keep + class.lease }
    }
  ]...)

  # Uploads that were never completed, old versions, and delete markers without any.
  tidying = { for name in concat(keys(var.classes), ["held"]) : "${name}-rest" => "${local.base}${name}/" }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  dynamic "rule" {
    for_each = local.expiring

    content {
      id     = "${local.rule_prefix}-${rule.key}"
      status = "Enabled"

      filter {
        prefix = rule.value.prefix
      }

      expiration {
        days = rule.value.days
      }
    }
  }

  dynamic "rule" {
    for_each = local.tidying

    content {
      id     = "${local.rule_prefix}-${rule.key}"
      status = "Enabled"

      filter {
        prefix = rule.value
      }

      abort_incomplete_multipart_upload {
        days_after_initiation = 7
      }

      noncurrent_version_expiration {
        noncurrent_days = 7
      }

      expiration {
        expired_object_delete_marker = true
      }
    }
  }

  # A rule about old versions has no effect before there are versions.
  depends_on = [aws_s3_bucket_versioning.this]
}
