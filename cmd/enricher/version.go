package main

import (
	"fmt"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

type versionCmd struct{}

// Run prints what this binary was built from.
func (versionCmd) Run(k *kong.Kong) error {
	b := readBuild()
	_, err := fmt.Fprintf(k.Stdout, "enricher %s\ncommit %s\n%s\n", b.version, b.commit, b.goVersion)
	return err
}

type build struct{ version, commit, goVersion string }

// readBuild asks the binary itself, so that no build needs linker flags.
func readBuild() build {
	b := build{version: "(devel)", commit: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.goVersion = info.GoVersion
	if info.Main.Version != "" {
		b.version = info.Main.Version
	}
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " (modified)"
		}
	}
	b.commit += dirty
	return b
}
