variable "name" {
  description = "Prefix of everything that is made."
  type        = string
  default     = "rlhf"
}

variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "vpc_id" {
  description = "An existing VPC."
  type        = string
}

variable "private_subnet_ids" {
  description = "Subnets in two or more zones, with a way out through a NAT gateway."
  type        = list(string)
  validation {
    condition     = length(var.private_subnet_ids) >= 2
    error_message = "RDS and EKS want subnets in at least two zones."
  }
}

variable "api_allowed_cidrs" {
  description = "Who may reach the cluster's API from outside the VPC; none by default."
  type        = list(string)
  default     = []
}

variable "kubernetes_version" {
  type    = string
  default = "1.33"
}

variable "gpu_instance_types" {
  description = "Of the nodes that come and go with the jobs."
  type        = list(string)
  default     = ["g6.2xlarge"]
}

variable "max_gpu_nodes" {
  type    = number
  default = 4
}

variable "database_instance_class" {
  type    = string
  default = "db.t4g.medium"
}

variable "keep_noncurrent_days" {
  description = "How long the bucket keeps what was overwritten or deleted."
  type        = number
  default     = 30
}

variable "namespace" {
  description = "The Kubernetes namespace of the pods that get the roles."
  type        = string
  default     = "rlhf"
}
