package main

import (
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/usage"
)

type completionCmd struct {
	Shell string `arg:"" values:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Example returns a command line for the help.
func (*completionCmd) Example() string { return "enricher completion bash" }

// Check implements config.Checker.
func (c *completionCmd) Check(src *config.Sources) {
	if err := usage.WriteScript(io.Discard, c.Shell); err != nil {
		src.Problem("", "%v", err)
	}
}

// Run prints the script that makes a shell complete command lines.
func (c *completionCmd) Run(k *kong.Kong) error { return usage.WriteScript(k.Stdout, c.Shell) }

// completeCmd is what those scripts run.
type completeCmd struct {
	Shell string   `arg:""`
	Words []string `arg:"" optional:""`
}

// Run prints the words that can replace the last one.
func (c *completeCmd) Run(k *kong.Kong) error {
	return usage.WriteWords(k.Stdout, c.Shell, usage.Complete(k.Model.Node, c.Words))
}

type manCmd struct{}

// Example returns a command line for the help.
func (manCmd) Example() string { return "enricher man" }

// Run prints the manual page.
func (manCmd) Run(k *kong.Kong) error {
	return usage.WriteMan(k.Stdout, k.Model.Node, readBuild().version, manNotes()...)
}

// manNotes returns the sections of the manual page that the model of the flags does
// not have.
func manNotes() [][2]string {
	return [][2]string{
		{"CONFIGURATION", "A flag can also be set by an environment variable, --api-rate by ENRICHER_API_RATE, or in the YAML file that " +
			"--config names. Flags override the environment, which overrides the file. What a dlq command or skip acts on comes from " +
			"the command line only. The secret key comes from a file, or from ENRICHER_SECRET_KEY."},
		{"EXIT STATUS", fmt.Sprintf("0 success, also after a drain; %d failure; %d wrong usage or configuration; %d a lookup of calls "+
			"that the API has no record of.", exitFailed, exitUsage, exitNoRecord)},
	}
}
