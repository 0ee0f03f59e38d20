package lease

// Remembered counts what a client remembers of leases, calls and sessions.
func Remembered(c *Client) map[string]int {
	users, calls := c.life.Count()
	c.mu.Lock()
	defer c.mu.Unlock()
	n := map[string]int{
		"users": users, "calls": calls, "ending": len(c.ending), "gates": len(c.keys.states), "covered": len(c.keys.tracked),
		"held": len(c.keys.held), "unlanded": len(c.unlanded), "unresolved": len(c.keys.unresolved), "joined": c.groups.Len(),
	}
	if s := c.session; s != nil {
		n["heartbeats"] = s.Unresolved()
	}
	return n
}

// Observed counts the sessions of others that a client remembers.
func Observed(c *Client) int {
	return c.others.Len()
}
