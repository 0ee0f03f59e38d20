package dynamomem

import (
	"cmp"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// scope holds the placeholders of a request. All of its expressions are parsed
// before any of it is applied.
type scope struct {
	names  map[string]string
	values item
	used   map[string]bool
}

func newScope(names map[string]string, values item) (*scope, error) {
	if (names != nil && len(names) == 0) || (values != nil && len(values) == 0) {
		return nil, invalid("expression attribute names or values must not be empty")
	}
	normal, err := normalizeItem(values)
	return &scope{names: names, values: normal, used: map[string]bool{}}, err
}

// checkUsed refuses placeholders that no expression has used, as DynamoDB does.
func (s *scope) checkUsed() error {
	for name := range s.names {
		if !s.used[name] {
			return invalid("value provided in ExpressionAttributeNames unused in expressions: %s", name)
		}
	}
	for name := range s.values {
		if !s.used[name] {
			return invalid("value provided in ExpressionAttributeValues unused in expressions: %s", name)
		}
	}
	return nil
}

// parser reads one expression. It keeps the first problem, after which it reads nothing more.
type parser struct {
	scope *scope
	text  string
	tail  []string // tokens
	err   error
}

var token = regexp.MustCompile(`^(?:\s*)([#:]?[A-Za-z0-9_]+|<>|<=|>=|[=<>(),+-])`)

// parser returns nil for an expression that is not there.
func (s *scope) parser(text *string) *parser {
	if text == nil {
		return nil
	}
	p := &parser{scope: s, text: *text}
	for tail := strings.TrimSpace(*text); tail != ""; tail = strings.TrimSpace(tail) {
		m := token.FindStringSubmatch(tail)
		if m == nil {
			p.fail("unexpected %.20q", tail)
			break
		}
		p.tail, tail = append(p.tail, m[1]), tail[len(m[0]):]
	}
	if len(p.tail) == 0 {
		p.fail("the expression is empty")
	}
	return p
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = invalid("invalid expression %q: "+format, append([]any{p.text}, args...)...)
	}
	p.tail = nil
}

func (p *parser) peek() string {
	if len(p.tail) == 0 {
		return ""
	}
	return p.tail[0]
}

func (p *parser) next() string {
	t := p.peek()
	if t == "" {
		p.fail("unexpected end")
		return ""
	}
	p.tail = p.tail[1:]
	return t
}

// accept takes the next token if it is t; keywords and functions are not told by case.
func (p *parser) accept(t string) bool {
	if !strings.EqualFold(p.peek(), t) {
		return false
	}
	p.tail = p.tail[1:]
	return true
}

func (p *parser) expect(t string) {
	if got := p.peek(); !p.accept(t) {
		p.fail("want %q before %q", t, got)
	}
}

// end refuses what is left over.
func (p *parser) end() error {
	if t := p.peek(); t != "" {
		p.fail("unexpected %q", t)
	}
	return p.err
}

// path reads the placeholder of an attribute's name, the only kind of path that is known.
func (p *parser) path() string {
	t := p.next()
	name, ok := p.scope.names[t]
	if !ok || !strings.HasPrefix(t, "#") {
		p.fail("%q is not one of the expression attribute names", t)
	}
	p.scope.used[t] = true
	return name
}

// value reads the placeholder of a value.
func (p *parser) value() types.AttributeValue {
	t := p.next()
	v, ok := p.scope.values[t]
	if !ok || !strings.HasPrefix(t, ":") {
		p.fail("%q is not one of the expression attribute values", t)
	}
	p.scope.used[t] = true
	return v
}

// projection reads a ProjectionExpression, nil for none.
func (s *scope) projection(text *string) ([]string, error) {
	p := s.parser(text)
	if p == nil {
		return nil, nil
	}
	known := map[string]bool{}
	var names []string
	for more := true; more && p.err == nil; more = p.accept(",") {
		name := p.path()
		if known[name] {
			p.fail("two document paths overlap: %q", name)
		}
		known[name], names = true, append(names, name)
	}
	return names, p.end()
}

// keyCondition is a KeyConditionExpression: one partition, and what the sort keys must be.
type keyCondition struct {
	partition types.AttributeValue
	sort      func(string) bool
}

func (s *scope) keyCondition(x Index, text *string) (keyCondition, error) {
	p := s.parser(text)
	if p == nil {
		return keyCondition{}, invalid("KeyConditionExpression is missing")
	}
	c := keyCondition{sort: func(string) bool { return true }}
	if p.path() != x.PartitionKey {
		p.fail("want a condition on the partition key %q first", x.PartitionKey)
	}
	p.expect("=")
	if c.partition = p.value(); c.partition != nil &&
		!keyValue(c.partition, cmp.Or(x.PartitionType, types.ScalarAttributeTypeS)) {
		p.fail("the partition key is compared to what is of another type, or empty")
	}
	if p.accept("AND") {
		begins := p.accept("begins_with")
		if begins {
			p.expect("(")
		}
		if p.path() != x.SortKey {
			p.fail("want a condition on the sort key %q", x.SortKey)
		}
		p.expect(map[bool]string{true: ",", false: "="}[begins])
		want := p.keyText()
		c.sort = func(s string) bool { return s == want || (begins && strings.HasPrefix(s, want)) }
		if begins {
			p.expect(")")
		}
	}
	return c, p.end()
}

// keyText reads a value that a sort key is compared to.
func (p *parser) keyText() string {
	v, ok := p.value().(*types.AttributeValueMemberS)
	if !ok || v.Value == "" {
		p.fail("a key is compared to what is not a string, or empty")
		return ""
	}
	return v.Value
}
