terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
    tls = {
      source  = "hashicorp/tls"
      version = "~> 4.0"
    }
  }
  # State holds no password (RDS keeps its own in Secrets Manager), but it does hold your layout: keep it in a
  # versioned, encrypted bucket. `terraform init -backend-config=backend.hcl` says which.
  backend "s3" {}
}

provider "aws" {
  region = var.region
  default_tags {
    tags = { project = var.name }
  }
}
