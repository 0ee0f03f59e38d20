package dynamomem

import (
	"bytes"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	maxDigits = 38
	// fraction is how many digits the longest number has behind the point.
	fraction = 130 + maxDigits
)

var numeral = regexp.MustCompile(`^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$`)

func rat(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

// parseNumber reads a number of at most 38 digits and a magnitude of less than 1e126.
func parseNumber(text string) (*big.Rat, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return new(big.Rat).SetInt64(n), nil // like most
	}
	if !numeral.MatchString(text) {
		return nil, invalid("%.50q is not a number", text)
	}
	n, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, invalid("%.50q is not a number", text)
	}
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(126), nil)
	if new(big.Rat).Abs(n).Cmp(new(big.Rat).SetInt(limit)) >= 0 {
		return nil, invalid("number overflow: %.50q", text)
	}
	if len(strings.Trim(strings.Replace(formatNumber(n), ".", "", 1), "-0")) > maxDigits {
		return nil, invalid("%.50q has more than %d significant digits", text, maxDigits)
	}
	return n, nil
}

// mustNumber reads a number of a row, which was checked when it was written.
func mustNumber(text string) *big.Rat {
	n, err := parseNumber(text)
	if err != nil {
		panic(err) // a row holds a number that was not checked
	}
	return n
}

// formatNumber writes it as DynamoDB does: without exponent and superfluous zeros.
func formatNumber(n *big.Rat) string {
	if n.IsInt() {
		return n.Num().String()
	}
	return strings.TrimRight(n.FloatString(fraction), "0")
}

// normalize returns a copy of v as a row holds it.
func normalize(name string, v types.AttributeValue) (types.AttributeValue, error) {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return &types.AttributeValueMemberS{Value: v.Value}, nil
	case *types.AttributeValueMemberB:
		return &types.AttributeValueMemberB{Value: append([]byte{}, v.Value...)}, nil
	case *types.AttributeValueMemberBOOL:
		return &types.AttributeValueMemberBOOL{Value: v.Value}, nil
	case *types.AttributeValueMemberN:
		n, err := parseNumber(v.Value)
		if err != nil {
			return nil, err
		}
		return &types.AttributeValueMemberN{Value: formatNumber(n)}, nil
	default:
		return nil, invalid("%q is a %T, which dynamomem does not know", name, v)
	}
}

func normalizeItem(it item) (item, error) {
	out := make(item, len(it))
	for name, v := range it {
		if name == "" {
			return nil, invalid("empty attribute name")
		}
		n, err := normalize(name, v)
		if err != nil {
			return nil, err
		}
		out[name] = n
	}
	return out, nil
}

// cloneItem copies a normalized item, nil for nil.
func cloneItem(it item) item {
	if it == nil {
		return nil
	}
	out, err := normalizeItem(it)
	if err != nil {
		panic(err) // a row holds a value that was not checked
	}
	return out
}

// sizeOf is the size of an item, nearly as DynamoDB counts it.
func sizeOf(it item) int {
	size := 0
	for name, v := range it {
		size += len(name)
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			size += len(v.Value)
		case *types.AttributeValueMemberB:
			size += len(v.Value)
		case *types.AttributeValueMemberN:
			size += len(v.Value)/2 + 1
		default:
			size++
		}
	}
	return size
}

// compare orders two values. ok is false if they are of different types, or of
// one that has no order.
func compare(a, b types.AttributeValue) (order int, ok bool) {
	switch a := a.(type) {
	case *types.AttributeValueMemberS:
		if b, ok := b.(*types.AttributeValueMemberS); ok {
			return strings.Compare(a.Value, b.Value), true
		}
	case *types.AttributeValueMemberB:
		if b, ok := b.(*types.AttributeValueMemberB); ok {
			return bytes.Compare(a.Value, b.Value), true
		}
	case *types.AttributeValueMemberN:
		if b, ok := b.(*types.AttributeValueMemberN); ok {
			return mustNumber(a.Value).Cmp(mustNumber(b.Value)), true
		}
	}
	return 0, false
}

func equal(a, b types.AttributeValue) bool {
	if x, ok := a.(*types.AttributeValueMemberBOOL); ok {
		y, ok := b.(*types.AttributeValueMemberBOOL)
		return ok && x.Value == y.Value
	}
	order, ok := compare(a, b)
	return ok && order == 0
}

func hasPrefix(v, prefix types.AttributeValue) bool {
	switch p := prefix.(type) {
	case *types.AttributeValueMemberS:
		s, ok := v.(*types.AttributeValueMemberS)
		return ok && strings.HasPrefix(s.Value, p.Value)
	case *types.AttributeValueMemberB:
		b, ok := v.(*types.AttributeValueMemberB)
		return ok && slices.Equal(b.Value[:min(len(p.Value), len(b.Value))], p.Value)
	}
	return false
}
