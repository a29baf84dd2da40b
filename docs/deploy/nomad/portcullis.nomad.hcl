# Two gateways on two Nomad clients, with PostgreSQL and the policy in ../policy.
#
#   nomad var put nomad/jobs/portcullis store_url='postgres://…' certificate=@tls.crt key=@tls.key
#   nomad job run portcullis.nomad.hcl
#
# A Nomad client limits kill_timeout to its own max_kill_timeout, which is 30s by default: set it to 45s or more.

variable "image" {
  type    = string
  default = "registry.example.com/portcullis:0.1.0"
}

locals {
  # The servers of a service that is registered with Nomad, in place of the name in the policy.
  servers = {
    for name in ["orders", "billing"] : name => <<-EOT
      {{ range $i, $server := nomadService "${name}" }}{{ if $i }}, {{ end }}"http://{{ .Address }}:{{ .Port }}"{{ end }}
    EOT
  }
  policy = replace(replace(file("../policy/gateway.toml"),
    "\"http://orders:8080\"", trimspace(local.servers["orders"])),
    "\"http://billing:8080\"", trimspace(local.servers["billing"]))
}

job "portcullis" {
  type = "service"

  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "5s"
    auto_revert      = true
  }

  group "gateway" {
    count = 2

    constraint {
      distinct_hosts = true
    }

    network {
      port "https" {
        static = 443
        to     = 8443
      }
      port "http" {
        static = 80
        to     = 8080
      }
      # The admin listener asks for no credential: let the hosts' firewall admit Nomad and Prometheus alone.
      port "admin" {
        static = 9900
      }
    }

    # The folder of signing keys, which all gateways share: a file system that supports locks.
    volume "state" {
      type            = "csi"
      source          = "portcullis-state"
      access_mode     = "multi-node-multi-writer"
      attachment_mode = "file-system"
    }

    service {
      name     = "portcullis"
      port     = "https"
      provider = "nomad"

      # Nomad sends the address as Host, which the admin listener accepts.
      check {
        type     = "http"
        port     = "admin"
        path     = "/readyz"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "portcullis-metrics"
      port     = "admin"
      provider = "nomad"
    }

    task "portcullis" {
      driver = "docker"
      user   = "65532:65532"

      # After SIGTERM the gateway serves for drain_delay, and its requests may then take as long as drain.
      kill_signal  = "SIGTERM"
      kill_timeout = "45s"

      config {
        image           = var.image
        args            = ["run", "--config", "/local/gateway.toml"]
        ports           = ["https", "http", "admin"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      env {
        PORTCULLIS_SERVER__HTTPS        = "0.0.0.0:8443"
        PORTCULLIS_SERVER__HTTP         = "0.0.0.0:8080"
        PORTCULLIS_SERVER__ADMIN        = "0.0.0.0:9900"
        PORTCULLIS_SERVER__PUBLIC_PORT  = "443"
        PORTCULLIS_SERVER__WORKERS      = "2"
        PORTCULLIS_SERVER__DRAIN_DELAY  = "10s"
        PORTCULLIS_SERVER__DRAIN        = "30s"
        PORTCULLIS_STATE__DIR           = "/var/lib/portcullis/state"
        PORTCULLIS_TLS__CERTIFICATE     = "/secrets/tls.crt"
        PORTCULLIS_TLS__KEY             = "/secrets/tls.key"
        PORTCULLIS_AUTHORITY__STORE     = "file:/secrets/store_url"
      }

      volume_mount {
        volume      = "state"
        destination = "/var/lib/portcullis"
      }

      # A changed policy, or other servers of a service: the gateway loads it. If it does not load, such as without any
      # server, the previous one stays in force.
      template {
        data          = local.policy
        destination   = "local/gateway.toml"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/portcullis\" }}{{ .store_url }}{{ end }}"
        destination = "secrets/store_url"
        uid         = 65532
        gid         = 65532
        perms       = "0400"
        change_mode = "restart"
      }

      # The gateway uses a new certificate by itself.
      template {
        data        = "{{ with nomadVar \"nomad/jobs/portcullis\" }}{{ .certificate }}{{ end }}"
        destination = "secrets/tls.crt"
        uid         = 65532
        gid         = 65532
        perms       = "0400"
        change_mode = "noop"
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/portcullis\" }}{{ .key }}{{ end }}"
        destination = "secrets/tls.key"
        uid         = 65532
        gid         = 65532
        perms       = "0400"
        change_mode = "noop"
      }

      resources {
        cpu        = 1000
        memory     = 256
        memory_max = 1024
      }
    }
  }
}
