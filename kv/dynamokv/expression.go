package dynamokv

import (
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// expression collects the placeholders of a request's expressions. Names may be DynamoDB's
// reserved words, and it refuses unused placeholders.
type expression struct {
	names  map[string]string // placeholder → attribute
	holder map[string]string // attribute → placeholder
	values item
}

func newExpression() *expression {
	return &expression{names: map[string]string{}, holder: map[string]string{}, values: item{}}
}

// attr returns the placeholder of an attribute's name.
func (e *expression) attr(name string) string {
	p, ok := e.holder[name]
	if !ok {
		p = fmt.Sprintf("#n%d", len(e.names))
		e.names[p], e.holder[name] = name, p
	}
	return p
}

// value returns a new placeholder of v.
func (e *expression) value(v types.AttributeValue) string {
	p := fmt.Sprintf(":v%d", len(e.values))
	e.values[p] = v
	return p
}

// notExpired is true of absent rows and tombstones too, those of a blind Delete excepted.
func (e *expression) notExpired(now time.Time) string {
	deadline := e.attr(attrDeadline)
	return fmt.Sprintf("(attribute_not_exists(%s) OR %s > %s)", deadline, deadline, e.value(numberAttr(now.UnixMilli())))
}

// notDead is true of live rows and of absent ones.
func (e *expression) notDead(now time.Time) string {
	return fmt.Sprintf("attribute_not_exists(%s) AND %s", e.attr(attrDeleted), e.notExpired(now))
}

// liveAt is true of a live row of exactly this version.
func (e *expression) liveAt(version uint64, now time.Time) string {
	return fmt.Sprintf("%s = %s AND %s", e.attr(attrVersion), e.value(numberAttr(version)), e.notDead(now))
}

// creatable is true if a create that gives its row version may be applied: there is no row,
// or a dead one of a lower version. So a late attempt of a create that was applied fails,
// whatever has become of the row since.
func (e *expression) creatable(id string, version uint64, now time.Time) string {
	return fmt.Sprintf("attribute_not_exists(%s) OR ((attribute_exists(%s) OR %s <= %s) AND %s < %s)", e.attr(id),
		e.attr(attrDeleted), e.attr(attrDeadline), e.value(numberAttr(now.UnixMilli())), e.attr(attrVersion),
		e.value(numberAttr(version)))
}
