//! What everything else here stands on: our images run in the cluster.

use std::time::Duration;

use e2e_rig::cluster::Cluster;

/// An image that is there starts within seconds; a machine of two cores that does other things as well needs longer.
const START: Duration = Duration::from_secs(60);

#[test]
fn the_forwarders_image_runs_without_any_privilege() {
    let cluster = Cluster::of_this_run().unwrap();
    let namespace = cluster.namespace("image").unwrap();
    // `runAsNonRoot` without a user: the image itself must name one.
    namespace
        .apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: help}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext:
    runAsNonRoot: true
    seccompProfile: {{type: RuntimeDefault}}
  containers:
  - name: forwarder
    image: {image}
    imagePullPolicy: IfNotPresent
    command: [forwarder, --help]
    securityContext:
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {{drop: [ALL]}}
",
            image = cluster.forwarder_image
        ))
        .unwrap();
    namespace
        .wait("pod/help", "jsonpath={.status.phase}=Succeeded", START)
        .unwrap();
    let said = namespace.kubectl(&["logs", "pod/help"]).unwrap();
    assert!(said.contains("Usage: forwarder"), "{said}");
}
