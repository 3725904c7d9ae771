provider "aws" {
  region = var.region
}

module "backups" {
  source = "../.."

  bucket        = var.bucket
  classes       = var.classes
  prefix        = var.prefix
  alarms        = { prod = {} }
  alarm_actions = var.alarm_actions
}
