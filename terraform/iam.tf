# The policies of docs/iam/, word for word but for the placeholders, and with the right to use the bucket's KMS key.
# Nothing is attached: give them to your own roles.
locals {
  roles = var.policies != null ? var.policies : toset([
    for file in fileset("${path.module}/../docs/iam", "*.json") : trimsuffix(file, ".json")
  ])

  documents = {
    for role in local.roles : role => jsondecode(
      replace(replace(replace(
        file("${path.module}/../docs/iam/${role}.json"),
        "EXAMPLE-PREFIX/", local.base),
        "EXAMPLE-BUCKET", aws_s3_bucket.this.bucket),
      "arn:aws:s3:", "arn:${local.partition}:s3:")
    )
  }

  # Without a prefix there is nothing to limit the listing to.
  statements = {
    for role, document in local.documents : role => [
      for statement in document.Statement : {
        for name, value in statement : name => value
        if !(var.prefix == "" && statement.Sid == "ListPrefix" && name == "Condition")
      }
    ]
  }

  # Whoever creates objects needs data keys; everybody reads.
  key_actions = {
    for role, document in local.documents : role => anytrue([
      for statement in document.Statement :
      statement.Effect == "Allow" && contains(flatten([statement.Action]), "s3:PutObject")
    ]) ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"]
  }
}

resource "aws_iam_policy" "role" {
  for_each = local.roles

  name        = "archiver-${var.bucket}-${each.key}"
  description = "archiver: ${each.key} of s3://${var.bucket}/${var.prefix}"

  policy = jsonencode({
    Version = local.documents[each.key].Version
    Statement = concat(local.statements[each.key], [
      for arn in local.kms_key_arn == null ? [] : [local.kms_key_arn] :
      { Sid = "UseKey", Effect = "Allow", Action = local.key_actions[each.key], Resource = arn }
    ])
  })
}
