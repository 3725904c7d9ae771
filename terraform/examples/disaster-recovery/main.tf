provider "aws" {
  region = var.region
}

provider "aws" {
  alias  = "replica"
  region = var.replica_region
}

module "backups" {
  source = "../.."

  bucket         = var.bucket
  classes        = var.classes
  prefix         = var.prefix
  object_lock    = "compliance"
  create_kms_key = true
  alarms         = { prod = {} }
  alarm_actions  = var.alarm_actions
}

module "replication" {
  source    = "../../replication"
  providers = { aws = aws, aws.replica = aws.replica }

  bucket         = module.backups.bucket
  replica_bucket = var.replica_bucket
  classes        = var.classes
  prefix         = var.prefix
  object_lock    = "compliance"
  kms            = { key_arn = module.backups.kms_key_arn }
}
