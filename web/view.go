package web

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"time"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"duration": duration, "instant": instant, "count": count, "size": size, "text": printable, "plural": plural,
	"links": func() []link { return links },
}).ParseFS(templateFiles, "templates/*.html"))

// builder makes a page of what was read. An error means that ctx has ended.
type builder func(ctx context.Context, query url.Values) (*view, error)

// link leads to a page of the navigation.
type link struct{ Nav, Title, Address string }

var links = []link{
	{"overview", "Overview", "./"}, {"locks", "Locks", "locks"}, {"sessions", "Sessions", "sessions"},
	{"elections", "Elections", "elections"}, {"pools", "Pools", "pools"}, {"once", "Once", "once"},
}

// view is a page as templates take it. Their names begin with its name.
type view struct {
	Name, Title string
	// Nav is the page of the navigation to which it belongs.
	Nav string
	// Query is what the page was asked for.
	Query url.Values
	// Search is what the field for searching says it searches, "": there is none.
	Search string
	// Data is for the head of the page.
	Data any
	// Rows are for the table, IDs their names in the same order.
	Rows []any
	IDs  []string
	// Pages are the links to other pages of the table.
	Pages []pageLink
	// Read is when what the page shows was received, Late why there is nothing newer.
	Read, Late string
	// Every is how often it is read.
	Every time.Duration
	// Plain: the page is not kept up to date.
	Plain bool
	// Acts: the page offers actions.
	Acts bool
	// Trouble counts what somebody should look at, for the title.
	Trouble int

	status int
	// next is when it is worth making the page again.
	next time.Duration
}

// pageLink leads to a page of a long table.
type pageLink struct {
	Number  int
	Address string
	Current bool
}

// kept is a part of the query that a search keeps.
type kept struct{ Name, Value string }

// Kept are those parts.
func (v *view) Kept() (found []kept) {
	for _, name := range []string{"name", "session", "state"} {
		if value := v.Query.Get(name); value != "" {
			found = append(found, kept{name, value})
		}
	}
	return found
}

// rendered is a page in its parts.
type rendered struct {
	title string
	// parts are the status, the head and the links to other pages.
	parts map[string]string
	rows  map[string]string
	order []string
}

// rowID is the name of a row in the page.
func rowID(kind, key string) string {
	hash := sha256.Sum256([]byte(kind + key))
	return "r" + hex.EncodeToString(hash[:8])
}

// add adds a row.
func (v *view) add(kind, key string, row any) {
	v.Rows = append(v.Rows, row)
	v.IDs = append(v.IDs, rowID(kind, key))
}

// render makes the parts of the page.
func (v *view) render() (*rendered, error) {
	p := &rendered{title: v.Title + " · dynalock", parts: map[string]string{}, rows: map[string]string{}, order: v.IDs}
	if v.Trouble > 0 {
		p.title = fmt.Sprintf("(%d) %s", v.Trouble, p.title)
	}
	var err error
	for part, name := range map[string]string{"status": "status", "head": v.Name, "pages": "pages"} {
		if p.parts[part], err = execute(name, v); err != nil {
			return nil, err
		}
	}
	for i, row := range v.Rows {
		data := struct {
			ID string
			Is any
		}{v.IDs[i], row}
		if p.rows[v.IDs[i]], err = execute(v.Name+"-row", data); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func execute(name string, data any) (string, error) {
	var text strings.Builder
	err := templates.ExecuteTemplate(&text, name, data)
	return strings.TrimSpace(text.String()), err
}

// whole is the page in one piece.
func (p *rendered) whole(v *view) (string, error) {
	var rows strings.Builder
	for _, id := range p.order {
		rows.WriteString(p.rows[id])
	}
	data := map[string]any{"View": v, "Title": p.title, "Rows": template.HTML(rows.String())}
	for part, html := range p.parts {
		data[part] = template.HTML(html) // templates have made it
	}
	if templates.Lookup(v.Name+"-columns") != nil {
		columns, err := execute(v.Name+"-columns", v)
		if err != nil {
			return "", err
		}
		data["Columns"] = template.HTML(columns)
	}
	return execute("layout", data)
}
