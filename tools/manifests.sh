#!/bin/sh
# Renders the plain manifests of deploy/kubernetes from the chart: sh tools/manifests.sh HELM [FILE]
#
# They use a secret of one's own, since there is nobody to keep a key that is made while rendering.
set -eu
cd "$(dirname "$0")/.."
{
  echo "# Rendered from deploy/helm/p2pmirror by tools/manifests.sh; deploy/kubernetes/README.md says how it is used."
  "${1:-helm}" template p2pmirror deploy/helm/p2pmirror --namespace p2pmirror --kube-version 1.34 --no-hooks \
    --set clusterKey.existingSecret=p2pmirror-key | grep -v '^ *helm.sh/chart:\|managed-by: Helm$'
} > "${2:-deploy/kubernetes/p2pmirror.yaml}"
