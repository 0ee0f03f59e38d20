package main_test

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// aProgramOfOnesOwn is all that somebody adds to worker.go who has copied it.
const aProgramOfOnesOwn = `package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

func main() {
	ctx, store := context.Background(), memkv.New()
	client, err := lease.New(store)
	if err != nil {
		log.Fatal(err)
	}
	p, err := pool.New(client, "mails", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Sync(ctx, "anna", "bob", "carla"); err != nil {
		log.Fatal(err)
	}
	w := &worker{name: "one", store: store, log: slog.Default(), set: "mails", ttl: lease.DefaultTTL,
		longest: pool.DefaultDrainTimeout, do: func(_ context.Context, _ *pool.Work, entry string) error {
			fmt.Println("mails", entry)
			return nil
		}}
	if err := w.run(ctx); err != nil {
		log.Fatal(err)
	}
}
`

// The compiler sees worker.go in another folder, beside that program alone.
func TestWorkerCanBeCopiedIntoAProgramOfOnesOwn(t *testing.T) {
	t.Parallel()
	worker, err := parser.ParseFile(token.NewFileSet(), "worker.go", nil, parser.ImportsOnly)
	require.NoError(t, err)
	for _, imported := range worker.Imports {
		require.NotContains(t, imported.Path.Value, "/internal/", "strangers cannot import it")
	}
	program := filepath.Join(t.TempDir(), "main.go")
	require.NoError(t, os.WriteFile(program, []byte(aProgramOfOnesOwn), 0o600))
	examples, err := filepath.Abs("..")
	require.NoError(t, err)
	copied := filepath.Join(examples, "program-of-ones-own")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(copied, "main.go"):   program,
		filepath.Join(copied, "worker.go"): filepath.Join(examples, "competing-consumers", "worker.go"),
	}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "overlay.json")
	require.NoError(t, os.WriteFile(file, overlay, 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "run", "-overlay", file, "./program-of-ones-own")
	cmd.Dir = examples
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, []string{"mails anna\n", "mails bob\n", "mails carla\n"}, slices.Sorted(strings.Lines(string(out))))
}
