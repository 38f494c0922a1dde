// Package check tests the contents of deploy/ without Docker or a cluster. It is a
// module of its own, so that enricher itself does not depend on Kubernetes.
// check.sh runs the tests.
package check
