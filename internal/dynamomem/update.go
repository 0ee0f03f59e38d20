package dynamomem

import (
	"math/big"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// update is a parsed UpdateExpression.
type update struct {
	set    map[string]valueOf
	remove []string
}

// valueOf computes what is assigned, from the row as it was.
type valueOf func(item) (types.AttributeValue, error)

// update parses an UpdateExpression of one SET and one REMOVE at most, in this order.
func (s *scope) update(t *table, text *string) (*update, error) {
	u := &update{set: map[string]valueOf{}}
	p := s.parser(text)
	if p == nil {
		return nil, invalid("UpdateExpression is missing")
	}
	known := map[string]bool{t.partitionKey: true, t.sortKey: true}
	target := func() string {
		name := p.path()
		if known[name] {
			p.fail("%q is part of the key, or named twice", name)
		}
		known[name] = true
		return name
	}
	if p.accept("SET") {
		for more := true; more && p.err == nil; more = p.accept(",") {
			name := target()
			p.expect("=")
			u.set[name] = p.sum()
		}
	}
	if p.accept("REMOVE") {
		for more := true; more && p.err == nil; more = p.accept(",") {
			u.remove = append(u.remove, target())
		}
	}
	return u, p.end()
}

// apply returns the row that follows old, which it leaves alone.
func (u *update) apply(old item) (item, error) {
	row := cloneItem(old)
	for name, value := range u.set {
		v, err := value(old)
		if err != nil {
			return nil, err
		}
		row[name] = v
	}
	for _, name := range u.remove {
		delete(row, name)
	}
	return row, nil
}

// sum reads a + b, or only a.
func (p *parser) sum() valueOf {
	a := p.term()
	if !p.accept("+") {
		return a
	}
	b := p.term()
	return func(it item) (types.AttributeValue, error) {
		x, err := number(a, it)
		if err != nil {
			return nil, err
		}
		y, err := number(b, it)
		if err != nil {
			return nil, err
		}
		return normalize("", &types.AttributeValueMemberN{Value: formatNumber(new(big.Rat).Add(x, y))})
	}
}

// term reads a path, a value or an if_not_exists.
func (p *parser) term() valueOf {
	if p.accept("if_not_exists") {
		p.expect("(")
		name := p.path()
		p.expect(",")
		otherwise := p.term()
		p.expect(")")
		return func(it item) (types.AttributeValue, error) {
			if v := it[name]; v != nil {
				return v, nil
			}
			return otherwise(it)
		}
	}
	v := p.operand()
	return func(it item) (types.AttributeValue, error) {
		if got := v(it); got != nil {
			return got, nil
		}
		return nil, invalid("the provided expression refers to an attribute that does not exist in the item")
	}
}

func number(v valueOf, it item) (*big.Rat, error) {
	got, err := v(it)
	if err != nil {
		return nil, err
	}
	n, ok := got.(*types.AttributeValueMemberN)
	if !ok {
		return nil, invalid("an operand of + is not a number")
	}
	return parseNumber(n.Value)
}
