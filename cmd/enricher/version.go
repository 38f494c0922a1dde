package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

type versionCmd struct{}

// Example returns a command line for the help.
func (versionCmd) Example() string { return "enricher version" }

// Run prints the version, the commit and the Go version of this binary.
func (versionCmd) Run(k *kong.Kong) error {
	b := readBuild()
	_, err := fmt.Fprintf(k.Stdout, "enricher %s\ncommit %s\n%s\n", b.version, b.commit, b.goVersion)
	return err
}

type build struct{ version, commit, goVersion string }

// readBuild returns what Go recorded in the binary, so that no build needs linker
// flags.
func readBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build{version: "(devel)", commit: "unknown", goVersion: runtime.Version()}
	}
	return buildOf(info)
}

func buildOf(info *debug.BuildInfo) build {
	b := build{version: "(devel)", commit: "unknown", goVersion: info.GoVersion}
	if info.Main.Version != "" {
		b.version = info.Main.Version
	}
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " (modified)"
		}
	}
	b.commit += modified
	return b
}
