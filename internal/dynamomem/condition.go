package dynamomem

import "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

// predicate is a parsed condition. A nil item is a row that is not there.
type predicate func(item) bool

// operand is a value of a row, or a constant; nil if the row does not have it.
type operand func(item) types.AttributeValue

// condition parses a ConditionExpression or FilterExpression; none is true of everything.
func (s *scope) condition(text *string) (predicate, error) {
	p := s.parser(text)
	if p == nil {
		return func(item) bool { return true }, nil
	}
	c := p.or()
	return c, p.end()
}

func (p *parser) or() predicate {
	left := p.and()
	for p.accept("OR") {
		a, b := left, p.and()
		left = func(it item) bool { return a(it) || b(it) }
	}
	return left
}

func (p *parser) and() predicate {
	left := p.not()
	for p.accept("AND") {
		a, b := left, p.not()
		left = func(it item) bool { return a(it) && b(it) }
	}
	return left
}

func (p *parser) not() predicate {
	if p.accept("NOT") {
		c := p.not()
		return func(it item) bool { return !c(it) }
	}
	if p.accept("(") {
		c := p.or()
		p.expect(")")
		return c
	}
	for _, f := range []struct {
		name string
		args func() predicate
	}{{"attribute_exists", p.exists}, {"attribute_not_exists", p.notExists}, {"begins_with", p.beginsWith}} {
		if p.accept(f.name) {
			p.expect("(")
			c := f.args()
			p.expect(")")
			return c
		}
	}
	return p.comparison()
}

func (p *parser) exists() predicate {
	name := p.path()
	return func(it item) bool { return it[name] != nil }
}

func (p *parser) notExists() predicate {
	name := p.path()
	return func(it item) bool { return it[name] == nil }
}

func (p *parser) beginsWith() predicate {
	name := p.path()
	p.expect(",")
	prefix := p.value()
	switch prefix.(type) {
	case *types.AttributeValueMemberS, *types.AttributeValueMemberB:
	default:
		p.fail("begins_with of what is neither a string nor binary")
	}
	return func(it item) bool { return hasPrefix(it[name], prefix) }
}

// operand reads a path or a value.
func (p *parser) operand() operand {
	if t := p.peek(); t != "" && t[0] == ':' {
		v := p.value()
		return func(item) types.AttributeValue { return v }
	}
	name := p.path()
	return func(it item) types.AttributeValue { return it[name] }
}

// comparison is false of values of two types, and of a value that is not there.
func (p *parser) comparison() predicate {
	a := p.operand()
	operator := p.next()
	b := p.operand()
	order := func(holds func(int) bool) predicate {
		return func(it item) bool {
			n, ok := compare(a(it), b(it))
			return ok && holds(n)
		}
	}
	switch operator {
	case "=":
		return func(it item) bool { return equal(a(it), b(it)) }
	case "<":
		return order(func(n int) bool { return n < 0 })
	case "<=":
		return order(func(n int) bool { return n <= 0 })
	case ">":
		return order(func(n int) bool { return n > 0 })
	case ">=":
		return order(func(n int) bool { return n >= 0 })
	}
	p.fail("dynamomem does not know the operator %q", operator)
	return nil
}
