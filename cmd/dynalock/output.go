package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// listing writes rows as the flags say, one by one or all at the end.
type listing struct {
	format  string
	out     io.Writer
	columns []column
	table   *tabwriter.Writer
	encoder *json.Encoder
	all     []any
}

// column is one of a table. wide: it is shown with -o wide only.
type column struct {
	name string
	wide bool
}

func (c *cli) list(columns ...column) *listing {
	l := &listing{format: c.output, out: c.out, columns: columns, encoder: c.lines(), all: []any{}}
	if l.format == "table" || l.format == "wide" {
		l.table = tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		l.line(func(c column) string { return c.name })
	}
	return l
}

func (l *listing) line(cell func(column) string) {
	var cells []string
	for _, c := range l.columns {
		if !c.wide || l.format == "wide" {
			cells = append(cells, cell(c))
		}
	}
	_, _ = fmt.Fprintln(l.table, strings.Join(cells, "\t"))
}

// add adds a row: its name, its cells by column, and itself for JSON.
func (l *listing) add(name string, cells map[string]string, row any) error {
	switch l.format {
	case "name":
		_, err := fmt.Fprintln(l.out, printable(name))
		return err
	case "jsonl":
		return l.encoder.Encode(row)
	case "json":
		l.all = append(l.all, row)
		return nil
	}
	l.line(func(c column) string {
		if cells[c.name] == "" {
			return "-"
		}
		return printable(cells[c.name])
	})
	return nil
}

// end writes what add has kept.
func (l *listing) end() error {
	switch {
	case l.table != nil:
		return l.table.Flush()
	case l.format == "json":
		l.encoder.SetIndent("", "  ")
		return l.encoder.Encode(l.all)
	}
	return nil
}

// logger logs with --verbose.
func (c *cli) logger() *slog.Logger {
	if c.verbose {
		return slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// lines writes values as lines of JSON, whatever --output says.
func (c *cli) lines() *json.Encoder {
	encoder := json.NewEncoder(c.out)
	encoder.SetEscapeHTML(false)
	return encoder
}

// encode writes one value as JSON: on one line with -o jsonl.
func (c *cli) encode(value any) error {
	encoder := c.lines()
	if c.output == "json" {
		encoder.SetIndent("", "  ")
	}
	return encoder.Encode(value)
}

// printable keeps what others have written from moving the cursor.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, text)
}

// short is a duration for people: 5s, 3m20s, 4h5m, 6d2h.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return short(time.Since(t))
}
