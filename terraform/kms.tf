locals {
  kms_key_arn = var.create_kms_key ? aws_kms_key.this[0].arn : var.kms_key_arn
}

resource "aws_kms_key" "this" {
  count = var.create_kms_key ? 1 : 0

  description             = "S3 bucket ${var.bucket}: backups by archiver"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  # The account's IAM policies decide who may use it: those of iam.tf say so for each role.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "LetIamDecide"
      Effect    = "Allow"
      Principal = { AWS = "arn:${local.partition}:iam::${data.aws_caller_identity.current.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })

  # Without the key every backup is lost.
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "this" {
  count = var.create_kms_key ? 1 : 0

  # An alias takes no dots, a bucket's name may have some; - and _ keep two such names apart.
  name          = "alias/archiver-${replace(var.bucket, ".", "_")}"
  target_key_id = aws_kms_key.this[0].key_id
}
