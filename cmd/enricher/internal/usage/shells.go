package usage

import (
	"fmt"
	"io"
	"strings"
)

// scripts make a shell ask this program, as enricher complete SHELL -- WORD…, for the
// words that complete a line. Where there are none, the shell completes file names.
var scripts = map[string]string{
	"bash": `# Completes enricher's command lines in bash: source this, or put it into the
# directory /usr/share/bash-completion/completions under the name enricher.
_enricher() {
    local IFS=$'\n'
    COMPREPLY=($("${COMP_WORDS[0]}" complete bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _enricher enricher
`,
	"zsh": `#compdef enricher
# Completes enricher's command lines in zsh: source this after compinit, or put it
# into a directory of $fpath under the name _enricher.
_enricher() {
    local -a found
    found=("${(@f)$("${words[1]}" complete zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        _describe enricher found
    else
        _files
    fi
}
if [[ "${funcstack[1]}" == _enricher ]]; then
    _enricher "$@"
else
    compdef _enricher enricher
fi
`,
	"fish": `# Completes enricher's command lines in fish: source this, or put it into the
# directory ~/.config/fish/completions under the name enricher.fish.
function __enricher_words
    set -l words (commandline -opc) "$(commandline -ct)"
    $words[1] complete fish -- $words[2..-1] 2>/dev/null
end
complete -c enricher -n 'test -n "$(__enricher_words)"' -f -a '(__enricher_words)'
`,
}

// WriteScript writes the script for a shell.
func WriteScript(w io.Writer, shell string) error {
	script, ok := scripts[shell]
	if !ok {
		return fmt.Errorf("there is no script for %q; use bash, zsh or fish", shell)
	}
	_, err := io.WriteString(w, script)
	return err
}

// WriteWords writes words as the script for a shell reads them, one per line.
func WriteWords(w io.Writer, shell string, words []Word) error {
	for _, word := range words {
		line := word.Text
		switch {
		case shell == "zsh":
			line = strings.ReplaceAll(word.Text, ":", `\:`)
			if word.Help != "" {
				line += ":" + word.Help
			}
		case shell == "fish" && word.Help != "":
			line += "\t" + word.Help
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
