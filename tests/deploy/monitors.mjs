// Validates objects of the Prometheus Operator by the schemas of its CRDs: a list as JSON on standard input.
import { readFileSync } from "node:fs";
import * as models from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

for (const { apiVersion, kind, ...rest } of JSON.parse(readFileSync(0, "utf8"))) {
  if (apiVersion !== "monitoring.coreos.com/v1" || !models[kind]) throw new Error(`unknown: ${apiVersion} ${kind}`);
  new models[kind](rest).validate();
}
