package config

import "enricher/schemas"

// FormatFlags choose the format of enriched records.
type FormatFlags struct {
	OutputFormat string `default:"json" values:"${formats}" help:"Format of enriched records: ${formats}."`
}

// Check implements Checker.
func (f *FormatFlags) Check(src *Sources) { src.OneOf("output-format", f.OutputFormat) }

// Format returns the format that is chosen.
func (f *FormatFlags) Format() schemas.Format { return schemas.Format(f.OutputFormat) }

// formatNames lists the values of --output-format.
func formatNames() []string {
	var all []string
	for _, f := range schemas.Formats() {
		all = append(all, string(f))
	}
	return all
}
