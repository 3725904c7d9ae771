# The same rules as "archiver lifecycle apply" sends (archiver/retention/policy.py), which tests/terraform proves.
# By prefix alone. There is none for held/ and vault/: what lies there has no end.
locals {
  base        = var.prefix == "" ? "" : "${var.prefix}/"
  rule_prefix = "archiver-${substr(sha256(local.base), 0, 8)}"

  expiring = merge([
    for name, class in var.classes : {
      "${name}-backups" = { prefix = "${local.base}${name}/backups/", days = class.keep }
      "${name}-data"    = { prefix = "${local.base}${name}/data/", days = class.keep + class.lease }
    }
  ]...)
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

  rule {
    id     = "${local.rule_prefix}-uploads"
    status = "Enabled"

    filter {
      prefix = local.base
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  rule {
    id     = "${local.rule_prefix}-versions"
    status = "Enabled"

    filter {
      prefix = local.base
    }

    noncurrent_version_expiration {
      noncurrent_days = 7
    }
  }

  rule {
    id     = "${local.rule_prefix}-markers"
    status = "Enabled"

    filter {
      prefix = local.base
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  # A rule about old versions has no effect before there are versions.
  depends_on = [aws_s3_bucket_versioning.this]
}
