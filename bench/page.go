package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// plot is a chart of horizontal bars.
type plot struct {
	file, title string
	bars        []bar
	// line is drawn across at this value, if it is not 0, with its meaning.
	line    float64
	meaning string
}

// bar is one of them; low and high are its spread.
type bar struct {
	name             string
	value, low, high float64
	label            string
}

// write makes the page and its plots.
func write(out, note string, took time.Duration, sections []section) error {
	if err := os.MkdirAll(filepath.Join(out, "figures"), 0o755); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Figures\n\nWritten by `make bench` on %s, in %v, on %s. %s\n\n"+
		"DynamoDB Local never throttles and answers in less than a millisecond: rates on it say nothing about AWS. What carries over are the\n"+
		"requests, the fractions, and what is measured in TTLs and polls.\n",
		time.Now().UTC().Format(time.DateOnly), took.Round(time.Second), machine(), note)
	for _, s := range sections {
		text, err := s.write(out)
		if err != nil {
			return err
		}
		b.WriteString(text)
	}
	return os.WriteFile(filepath.Join(out, "figures.md"), []byte(b.String()), 0o644)
}

// write draws the plots, and returns the section's text.
func (s section) write(out string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", s.title, s.method)
	for i, row := range s.table {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|---|%s\n", strings.Repeat("---:|", len(row)-1))
		}
	}
	for _, p := range s.plots {
		fmt.Fprintf(&b, "\n![%s](figures/%s)\n", p.title, p.file)
		if err := os.WriteFile(filepath.Join(out, "figures", p.file), []byte(p.svg()), 0o644); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// replace puts a section into the page: in the place of the one of its title, or
// at the end.
func replace(out string, s section) error {
	file := filepath.Join(out, "figures.md")
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err := s.write(out)
	if err != nil {
		return err
	}
	before, old, found := strings.Cut(string(page), "\n## "+s.title+"\n")
	after := ""
	if _, rest, more := strings.Cut(old, "\n## "); found && more {
		after = "\n## " + rest
	}
	return os.WriteFile(file, []byte(before+text+after), 0o644)
}

// Measures of a plot, in pixels.
const (
	plotWidth, plotLeft, plotRight = 720, 260, 90
	barHeight, barStep, plotTop    = 16, 26, 40
)

// svg draws the plot.
func (p plot) svg() string {
	most := p.line
	for _, b := range p.bars {
		most = max(most, b.value, b.high)
	}
	x := func(v float64) float64 { return plotLeft + v/most*(plotWidth-plotLeft-plotRight) }
	height := plotTop + barStep*len(p.bars) + 24
	var s strings.Builder
	fmt.Fprintf(&s,
		`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		plotWidth, height)
	fmt.Fprintf(&s, `<rect width="100%%" height="100%%" fill="white"/><text x="10" y="20" font-size="14">%s</text>`+"\n",
		p.title)
	for i, b := range p.bars {
		y := plotTop + i*barStep
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end">%s</text>`, plotLeft-8, y+12, b.name)
		fmt.Fprintf(&s, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="#4878a8"/>`, plotLeft, y, x(b.value)-plotLeft,
			barHeight)
		if b.high > b.low {
			fmt.Fprintf(&s, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="black" stroke-width="2"/>`, x(b.low), x(b.high),
				y+8, y+8)
		}
		fmt.Fprintf(&s, `<text x="%.1f" y="%d">%s</text>`+"\n", x(max(b.value, b.high))+6, y+12, b.label)
	}
	if p.line > 0 {
		fmt.Fprintf(&s, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#b03030" stroke-dasharray="4"/>`, x(p.line),
			x(p.line), plotTop-6, height-20)
		fmt.Fprintf(&s, `<text x="%.1f" y="%d" text-anchor="middle" fill="#b03030">%s</text>`+"\n", x(p.line), height-6,
			p.meaning)
	}
	return s.String() + "</svg>\n"
}

// ms writes a duration in milliseconds.
func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
