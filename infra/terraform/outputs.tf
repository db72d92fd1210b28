output "bucket" {
  description = "BUCKET of infra/kubernetes/overlays/aws; also RLHF_STORE=s3://BUCKET/store."
  value       = aws_s3_bucket.store.bucket
}

output "database_address" {
  description = "For `python infra/make_secrets.py .secrets --postgres ADDRESS:5432`."
  value       = aws_db_instance.database.address
}

output "database_secret_arn" {
  description = "Where RDS keeps the master password."
  value       = aws_db_instance.database.master_user_secret[0].secret_arn
}

output "registries" {
  description = "Where to push the images."
  value       = { for name, repository in aws_ecr_repository.image : name => repository.repository_url }
}

output "run_role_arn" {
  description = "For the service account `run`."
  value       = aws_iam_role.run.arn
}
