package lease

// gate is where the acquires of one key by this client meet.
type gate struct {
	// queue is held by the one that waits for the key, so that one poller serves the process; the
	// others queue behind it, first come first served. writing is held during an acquiring write: there is one at a time (R9).
	queue, writing chan struct{}
	// freed is told when a lease of this client on the key has ended, so that the poller looks at once.
	freed chan struct{}
	users int
}

// gateOf returns the gate of a key; the caller leaves it with leaveGate.
func (c *Client) gateOf(key string) *gate {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.gates[key]
	if !ok {
		g = &gate{queue: make(chan struct{}, 1), writing: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
		c.gates[key] = g
	}
	g.users++
	return g
}

func (c *Client) leaveGate(key string, g *gate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g.users--; g.users == 0 {
		delete(c.gates, key)
	}
}

// wake tells the local waiter for key, if there is one, that the key may be free.
func (c *Client) wake(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g, ok := c.gates[key]; ok {
		g.wake()
	}
}

// wake leaves word for the waiter, unless word is there already.
func (g *gate) wake() {
	select {
	case g.freed <- struct{}{}:
	default:
	}
}
