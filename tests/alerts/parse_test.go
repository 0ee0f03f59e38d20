package alerts_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// expression is a node of the part of PromQL that infra's alerts and dashboard
// use.
type expression interface {
	eval(db *scrapes, at time.Time) []value
}

type (
	number   float64
	selector struct {
		name        string
		matchers    []matcher
		rng, offset time.Duration
	}
	matcher struct {
		label, op string
		value     *regexp.Regexp
	}
	call struct {
		function string
		args     []expression
	}
	aggregate struct {
		function string
		by       []string
		of       expression
	}
	binary struct {
		op          string
		left, right expression
	}
)

var token = regexp.MustCompile(`^(?:\s+|([a-zA-Z_][a-zA-Z0-9_]*)|([0-9.]+(?:[smh])?)|` +
	`("(?:[^"\\]|\\.)*")|(=~|==|!=|!~|[=<>(){}\[\],/]))`)

// parsePromQL parses a whole expression. $__rate_interval is 5m, as $job is .*.
func parsePromQL(t *testing.T, text string) expression {
	t.Helper()
	text = strings.NewReplacer("$__rate_interval", "5m", "$job", ".*").Replace(text)
	p := &promQL{t: t, text: text}
	for rest := text; rest != ""; {
		m := token.FindStringSubmatch(rest)
		require.NotNil(t, m, "%s: no token at %q", text, rest)
		if s := strings.TrimSpace(m[0]); s != "" {
			p.tokens = append(p.tokens, s)
		}
		rest = rest[len(m[0]):]
	}
	e := p.operators(0)
	require.Empty(t, p.tokens, "%s: want an end", text)
	return e
}

type promQL struct {
	t      *testing.T
	text   string
	tokens []string
}

func (p *promQL) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *promQL) next() string {
	require.NotEmpty(p.t, p.tokens, "%s: ends too early", p.text)
	next := p.tokens[0]
	p.tokens = p.tokens[1:]
	return next
}

func (p *promQL) accept(want string) bool {
	if p.peek() != want {
		return false
	}
	p.next()
	return true
}

func (p *promQL) expect(want string) { require.Equal(p.t, want, p.next(), "%s", p.text) }

// levels are the operators, by how weakly they bind.
var levels = [][]string{{"or"}, {"unless"}, {">", "<", "=="}, {"/"}}

func (p *promQL) operators(level int) expression {
	if level == len(levels) {
		return p.operand()
	}
	left := p.operators(level + 1)
	for slices.Contains(levels[level], p.peek()) {
		op := p.next()
		left = binary{op, left, p.operators(level + 1)}
	}
	return left
}

func (p *promQL) operand() expression {
	if p.accept("(") {
		e := p.operators(0)
		p.expect(")")
		return e
	}
	name := p.next()
	if n, err := strconv.ParseFloat(name, 64); err == nil {
		return number(n)
	}
	switch name {
	case "sum", "max", "min":
		a := aggregate{function: name}
		if p.accept("by") {
			p.expect("(")
			for !p.accept(")") {
				a.by = append(a.by, p.next())
				p.accept(",")
			}
		}
		p.expect("(")
		a.of = p.operators(0)
		p.expect(")")
		return a
	case "increase", "rate", "min_over_time", "histogram_quantile":
		c := call{function: name}
		p.expect("(")
		for !p.accept(")") {
			c.args = append(c.args, p.operators(0))
			p.accept(",")
		}
		return c
	}
	return p.selector(name)
}

func (p *promQL) selector(name string) expression {
	s := selector{name: name}
	if p.accept("{") {
		for !p.accept("}") {
			label, op := p.next(), p.next()
			require.Contains(p.t, []string{"=", "!=", "=~"}, op, "%s", p.text)
			value, err := strconv.Unquote(p.next())
			require.NoError(p.t, err, "%s", p.text)
			if op != "=~" {
				value = regexp.QuoteMeta(value)
			}
			s.matchers = append(s.matchers, matcher{label, op, regexp.MustCompile("^(?:" + value + ")$")})
			p.accept(",")
		}
	}
	if p.accept("[") {
		s.rng = p.duration()
		p.expect("]")
	}
	if p.accept("offset") {
		s.offset = p.duration()
	}
	return s
}

func (p *promQL) duration() time.Duration {
	d, err := time.ParseDuration(p.next())
	require.NoError(p.t, err, "%s", p.text)
	return d
}

// selectors are those of an expression.
func selectors(e expression) []selector {
	switch e := e.(type) {
	case selector:
		return []selector{e}
	case call:
		var all []selector
		for _, arg := range e.args {
			all = append(all, selectors(arg)...)
		}
		return all
	case aggregate:
		return selectors(e.of)
	case binary:
		return append(selectors(e.left), selectors(e.right)...)
	case number:
		return nil
	}
	panic(fmt.Sprintf("%T", e))
}
