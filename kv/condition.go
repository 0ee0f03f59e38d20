package kv

// Condition says that the live pair of a key has a field with a certain value.
// It guards writes outside this API: dynamokv turns it into the ConditionCheck
// of a DynamoDB transaction. The other drivers here have no such method.
type Condition struct {
	// Key is the pair's key, as the driver's store sees it.
	Key string
	// Field and Value are what the pair must have.
	Field string
	Value any
}

// ConditionMapper is implemented by wrappers that change keys.
type ConditionMapper interface {
	// MapCondition returns c, which is in terms of the wrapper's keys, in terms
	// of the wrapped store's.
	MapCondition(c Condition) Condition
}

// ResolveCondition translates a condition on a key of store into one on a key of its
// driver, through any wrappers.
func ResolveCondition(store Store, c Condition) Condition {
	for {
		if m, ok := store.(ConditionMapper); ok {
			c = m.MapCondition(c)
		}
		w, ok := store.(Wrapper)
		if !ok {
			return c
		}
		store = w.Unwrap()
	}
}
