# A launch template for managed node groups of Amazon Linux 2023 whose nodes know the mirror before their first pull.

variable "name" {
  description = "Name of the launch template."
  type        = string
  default     = "p2pmirror"
}

variable "security_group_ids" {
  description = "Security groups of the nodes; the group made here is added to them."
  type        = list(string)
}

variable "vpc_id" {
  description = "VPC of the nodes."
  type        = string
}

resource "aws_security_group" "p2pmirror" {
  name_prefix = "${var.name}-"
  description = "p2pmirror agents of nodes reach one another"
  vpc_id      = var.vpc_id

  ingress {
    description = "content"
    from_port   = 29999
    to_port     = 29999
    protocol    = "tcp"
    self        = true
  }

  ingress {
    description = "who has what"
    from_port   = 29998
    to_port     = 29998
    protocol    = "udp"
    self        = true
  }
}

resource "aws_launch_template" "p2pmirror" {
  name_prefix            = "${var.name}-"
  update_default_version = true
  vpc_security_group_ids = concat(var.security_group_ids, [aws_security_group.p2pmirror.id])
  user_data              = filebase64("${path.module}/user-data-al2023.mime")

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
}

output "id" {
  description = "For launch_template.id of a node group."
  value       = aws_launch_template.p2pmirror.id
}

output "version" {
  description = "For launch_template.version of a node group."
  value       = aws_launch_template.p2pmirror.latest_version
}
