data "aws_partition" "current" {}

locals {
  base       = var.prefix == "" ? "" : "${var.prefix}/"
  bucket_arn = "arn:${data.aws_partition.current.partition}:s3:::${var.bucket}"
}

# A bucket like the first, with lifecycle rules of its own: S3 copies no rules. It applies them to the copies by the age
# of the originals.
module "replica" {
  source    = "../"
  providers = { aws = aws.replica }

  bucket            = var.replica_bucket
  classes           = var.classes
  prefix            = var.prefix
  object_lock       = var.object_lock
  create_kms_key    = var.kms == null ? false : var.kms.replica_key_arn == null
  kms_key_arn       = var.kms == null ? null : var.kms.replica_key_arn
  policies          = var.policies
  policy_statements = var.policy_statements
}

resource "aws_iam_role" "replication" {
  # At most 64 characters, and a bucket's name may have 63.
  name        = "archiver-replication-${substr(sha256("${var.bucket}/${var.replica_bucket}"), 0, 16)}"
  description = "S3 copies ${var.bucket} to ${var.replica_bucket}"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "LetS3Copy"
      Effect    = "Allow"
      Principal = { Service = "s3.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

# No s3:ReplicateDelete: what is deleted on one side stays on the other. New versions of a key do come over.
resource "aws_iam_role_policy" "replication" {
  name = "replicate"
  role = aws_iam_role.replication.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "ReadSettings"
          Effect   = "Allow"
          Action   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
          Resource = local.bucket_arn
        },
        {
          Sid    = "ReadVersions"
          Effect = "Allow"
          Action = [
            "s3:GetObjectVersionForReplication",
            "s3:GetObjectVersionAcl",
            "s3:GetObjectVersionTagging",
            "s3:GetObjectRetention",
            "s3:GetObjectLegalHold",
          ]
          Resource = "${local.bucket_arn}/${local.base}*"
        },
        {
          Sid      = "WriteCopies"
          Effect   = "Allow"
          Action   = ["s3:ReplicateObject", "s3:ReplicateTags"]
          Resource = "${module.replica.bucket_arn}/${local.base}*"
        },
      ],
      [
        for kms in var.kms == null ? [] : [var.kms] : {
          Sid       = "DecryptOriginals"
          Effect    = "Allow"
          Action    = ["kms:Decrypt"]
          Resource  = kms.key_arn
          Condition = { StringLike = { "kms:EncryptionContext:aws:s3:arn" = [local.bucket_arn, "${local.bucket_arn}/*"] } }
        }
      ],
      [
        for kms in var.kms == null ? [] : [var.kms] : {
          Sid      = "EncryptCopies"
          Effect   = "Allow"
          Action   = ["kms:Encrypt", "kms:GenerateDataKey"]
          Resource = module.replica.kms_key_arn
          Condition = {
            StringLike = {
              "kms:EncryptionContext:aws:s3:arn" = [module.replica.bucket_arn, "${module.replica.bucket_arn}/*"]
            }
          }
        }
      ],
    )
  })
}

resource "aws_s3_bucket_replication_configuration" "this" {
  bucket = var.bucket
  role   = aws_iam_role.replication.arn

  rule {
    id       = "archiver"
    priority = 0
    status   = "Enabled"

    filter {
      prefix = local.base
    }

    # Whoever deletes in one region deletes nothing in the other. He can still create a key anew, and that is copied: a
    # new version there, under which the old one lies, for 7 days in a class and in held/, in vault/ for good.
    delete_marker_replication {
      status = "Disabled"
    }

    dynamic "source_selection_criteria" {
      for_each = var.kms == null ? [] : [var.kms]

      content {
        sse_kms_encrypted_objects {
          status = "Enabled"
        }
      }
    }

    destination {
      bucket = module.replica.bucket_arn

      dynamic "encryption_configuration" {
        for_each = var.kms == null ? [] : [var.kms]

        content {
          replica_kms_key_id = module.replica.kms_key_arn
        }
      }

      dynamic "replication_time" {
        for_each = var.replication_time_control ? [15] : []

        content {
          status = "Enabled"

          time {
            minutes = replication_time.value
          }
        }
      }

      dynamic "metrics" {
        for_each = var.replication_time_control ? [15] : []

        content {
          status = "Enabled"

          event_threshold {
            minutes = metrics.value
          }
        }
      }
    }
  }

  depends_on = [aws_iam_role_policy.replication]
}
