// Package check holds the checks of what is in deploy/, as far as they need no
// container engine and no cluster. It is a module of its own, so that the
// program does not depend on Kubernetes. check.sh runs it.
package check
