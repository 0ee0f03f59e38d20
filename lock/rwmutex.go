package lock

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/lease"
)

// RWMutex is a named lock that any number of readers hold at a time, or one
// writer, over all processes that name it (R22). It is safe for concurrent use.
// Make one per name and process and share it: goroutines that wait at one
// RWMutex share a poller. Use NewRWMutex. The zero RWMutex refuses every call.
//
// A writer that waits keeps new readers out, so readers do not starve writers.
// Writers may starve readers. A reader that waits looks once per poll, and gets
// in only if it finds no writer then, nor after it has written its row. One
// client that writes in a loop leaves such gaps, after a second and a half of
// short holds (R15). Where several clients write in a loop, with a few goroutines
// each, readers wait for minutes, and nothing bounds it.
//
// A resource needs two bars to be safe from a holder that was paused: see
// ReadLease.Epoch.
//
// It is not reentrant. A reader that asks for Lock waits for itself. One that asks
// for RLock a second time waits for ever if a writer has come in between, who
// waits for the first. There is no way to turn one kind of lock into the other
// without giving it back.
type RWMutex struct {
	client  *lease.Client
	name    string
	options []lease.AcquireOption

	// polling is held by the reader that asks for all that wait here.
	polling chan struct{}
	// left gets a word when a reader of this RWMutex has given its row back.
	left chan struct{}

	mu sync.Mutex
	// open is closed, and made anew, when no writer has the lock any more.
	open chan struct{}
	// numbers are those of the readers' rows that are in use, with the lease
	// where there is one.
	numbers map[int]*lease.Lease
}

// NewRWMutex returns the lock called name. The options go with every
// acquisition, of readers and writers. What lease.WithMaxHold and
// lease.WithMinRemaining bound begins with the row that the call writes first:
// what follows, such as waiting for readers to leave, counts too.
// lease.KeepValue and lease.WithRetention would leave a row of every reader
// behind. NewRWMutex does no I/O. A nil client, a bad option, and a name that
// is empty or too long for a key when it is escaped, are errors of each call,
// which match lease.ErrInvalid.
func NewRWMutex(client *lease.Client, name string, options ...lease.AcquireOption) *RWMutex {
	return &RWMutex{
		client: client, name: name, options: slices.Clone(options),
		polling: make(chan struct{}, 1), left: make(chan struct{}, 1),
		open: make(chan struct{}), numbers: map[int]*lease.Lease{},
	}
}

// prefix is what all keys of the lock begin with. No name lies within another.
func (m *RWMutex) prefix() string { return rows.RWKeys + url.PathEscape(m.name) + "/" }

// writerKey is that of the row that writers hold. It keeps its value, which is
// nothing, so that its version is there for readers to see.
func (m *RWMutex) writerKey() string { return m.prefix() + "w" }

// readersPrefix is what the keys of readers begin with.
func (m *RWMutex) readersPrefix() string { return m.prefix() + "r/" }

// readerKey is that of a reader of this client.
func (m *RWMutex) readerKey(number int) string {
	return m.readersPrefix() + seam.Of(m.client).ID() + "/" + strconv.Itoa(number)
}

// longestReader is how much longer than readersPrefix the key of a reader is at
// most: 16 digits, a slash, and a number.
const longestReader = 16 + 1 + 10

// check refuses an RWMutex that cannot be locked.
func (m *RWMutex) check(method string) error {
	switch {
	case m.client == nil:
		return errNoClient(method)
	case m.name == "", len(m.readersPrefix())+longestReader > lease.MaxKeySize:
		return fmt.Errorf("lock: %s: name %.40q of %d bytes: want 1 to %d bytes when it is escaped: %w", method,
			m.name, len(m.name), lease.MaxKeySize-longestReader-len(rows.RWKeys+"/r/"), lease.ErrInvalid)
	}
	return nil
}

// releaseUnused gives the row of a call back.
func (m *RWMutex) releaseUnused(ctx context.Context, longest time.Duration, row *lease.Lease) {
	releaseUnused(ctx, m.client, longest, func(ctx context.Context) { seam.ReleaseUnused(ctx, row) })
}

// Holders returns who has the lock, in the order of their keys' bytes: readers,
// and a writer, who may still be waiting for them. Holders that have died may
// be among them. It costs one listing.
func (m *RWMutex) Holders(ctx context.Context) ([]*lease.Holder, error) {
	if err := m.check("Holders"); err != nil {
		return nil, err
	}
	var holders []*lease.Holder
	for h, err := range m.client.Holders(ctx, m.prefix()) {
		if err != nil {
			return nil, err
		}
		holders = append(holders, h)
	}
	return holders, nil
}
