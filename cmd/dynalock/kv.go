package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/kv"
)

// ours are the prefixes of what the library itself keeps.
var ours = []string{"session/", "lease/", "pool/"}

func isOurs(key string) bool {
	return slices.ContainsFunc(ours, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// kvFlags are those of kv and what is below it.
type kvFlags struct {
	internal, ifAbsent, text, base64 bool
	ifVersion                        uint64
	ttl                              time.Duration
	fields                           map[string]string
}

func (c *cli) kvCommand() *cobra.Command {
	f := &kvFlags{}
	group := &cobra.Command{
		Use: "kv", Short: "Read and write pairs of the store",
		Long: `kv reads and writes the pairs that programs keep in the store beside their locks.

What the library itself keeps, under session/, lease/ and pool/, is not shown by ls, watch and export, and not written,
unless --internal is given: who writes there breaks locks.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.PersistentFlags().BoolVar(&f.internal, "internal", false, "also what the library itself keeps")
	group.AddCommand(
		c.kvGetCommand(), c.kvPutCommand(f), c.kvRemoveCommand(f), c.kvListCommand(f), c.kvWatchCommand(f),
		c.kvExportCommand(f), c.kvImportCommand(f),
	)
	return group
}

// writable refuses keys of the library's own.
func (f *kvFlags) writable(command, key string) error {
	if isOurs(key) && !f.internal {
		return usage(fmt.Errorf("kv %s: %q is the library's own: whoever writes there breaks locks. "+
			"--internal does it all the same", command, key))
	}
	return nil
}

func (c *cli) kvGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get KEY", Short: "Print a value, as it is; with -o json the whole pair", Args: oneKey("kv get"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				pair, err := s.store.Get(ctx, args[0])
				if err != nil {
					return err
				}
				if c.output == "json" || c.output == "jsonl" {
					return c.encode(pairRowOf(pair))
				}
				_, err = c.out.Write(pair.Bytes())
				return err
			})
		},
	}
}

func (c *cli) kvPutCommand(f *kvFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "put KEY [VALUE]", Short: "Write a pair; without VALUE the standard input",
		Long: `put writes a pair, whatever was there. --if-absent and --if-version write only over what they say,
and the status is 1 if something else is there. Fields are numbers where they look like one.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return usage(errors.New("kv put: want KEY [VALUE]"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.writable("put", args[0]); err != nil {
				return err
			}
			if f.ifAbsent && f.ifVersion != 0 {
				return usage(errors.New("kv put: want one of --if-absent and --if-version"))
			}
			var value []byte
			if len(args) == 2 {
				value = []byte(args[1])
			} else if read, err := io.ReadAll(io.LimitReader(c.in, kv.MaxPairSize+1)); err != nil {
				return err
			} else {
				value = read
			}
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				return f.put(ctx, s.store, args[0], value)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.ifAbsent, "if-absent", false, "only if there is no such pair")
	flags.Uint64Var(&f.ifVersion, "if-version", 0, "only over this version")
	flags.DurationVar(&f.ttl, "ttl", 0, "how long the pair lives (default for ever)")
	flags.StringToStringVar(&f.fields, "field", nil, "a field, such as --field size=17")
	return cmd
}

func (f *kvFlags) put(ctx context.Context, store kv.Store, key string, value []byte) error {
	options := []kv.WriteOption{kv.WithBytes(value)}
	if f.ttl != 0 {
		options = append(options, kv.WithTTL(f.ttl))
	}
	if len(f.fields) > 0 {
		fields := kv.Fields{}
		for name, text := range f.fields {
			fields[name] = text
			if number, err := kv.ParseNumber(text); err == nil {
				fields[name] = number
			}
		}
		options = append(options, kv.WithFields(fields))
	}
	switch {
	case f.ifVersion != 0:
		_, err := store.AtomicPut(ctx, key, append(options, kv.WithPrevious(versionOf(key, f.ifVersion)))...)
		return err
	case f.ifAbsent:
		_, err := store.AtomicPut(ctx, key, options...)
		return err
	}
	return store.Put(ctx, key, options...)
}

// versionOf is a pair that a conditional write compares with.
func versionOf(key string, version uint64) *kv.KVPair {
	return kv.NewPair(key, version, nil, time.Time{}, nil)
}

func (c *cli) kvRemoveCommand(f *kvFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm KEY", Short: "Delete a pair, if it is there", Args: oneKey("kv rm"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.writable("rm", args[0]); err != nil {
				return err
			}
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				if f.ifVersion != 0 {
					return s.store.AtomicDelete(ctx, args[0], versionOf(args[0], f.ifVersion))
				}
				return s.store.Delete(ctx, args[0])
			})
		},
	}
	cmd.Flags().Uint64Var(&f.ifVersion, "if-version", 0, "only this version")
	return cmd
}

// onePrefix takes a prefix, or none.
func onePrefix(command string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(fmt.Errorf("%s: want one prefix at most", command))
		}
		return nil
	}
}

// shown reports whether a listing of prefix shows key: the library's own pairs only
// where they are asked for.
func (f *kvFlags) shown(key string) bool { return f.internal || !isOurs(key) }

func (c *cli) kvListCommand(f *kvFlags) *cobra.Command {
	return &cobra.Command{
		Use: "ls [PREFIX]", Short: "List pairs", Args: onePrefix("kv ls"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				l := c.list(column{name: "KEY"}, column{name: "VERSION"}, column{name: "BYTES"}, column{name: "EXPIRES"},
					column{name: "FIELDS", wide: true})
				for pair, err := range kv.All(ctx, s.store, strings.Join(args, "")) {
					if err != nil {
						return err
					}
					if !f.shown(pair.Key) {
						continue
					}
					if err := l.add(pair.Key, map[string]string{
						"KEY": pair.Key, "VERSION": strconv.FormatUint(pair.Version, 10), "BYTES": strconv.Itoa(len(pair.Bytes())),
						"EXPIRES": stamp(pair.Expires), "FIELDS": strings.Join(slices.Sorted(maps.Keys(pair.Fields)), " "),
					}, pairRowOf(pair)); err != nil {
						return err
					}
				}
				return l.end()
			})
		},
	}
}

// eventRow is what a watch has shown, for JSON.
type eventRow struct {
	Event string `json:"event"` // put, delete, synced
	pairRow
}

func (c *cli) kvWatchCommand(f *kvFlags) *cobra.Command {
	return &cobra.Command{
		Use: "watch [PREFIX]", Short: "Print pairs, and then what becomes of them, as JSON lines",
		Args: onePrefix("kv watch"),
		Long: `watch prints a line for each pair, the line {"event":"synced"}, and then one for each change, until it is
interrupted. Changes that follow one another quickly may show as one.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.untilStopped(cmd.Context(), func(ctx context.Context, s *opened) error {
				return c.watch(ctx, s, f, strings.Join(args, ""))
			})
		},
	}
}

func (c *cli) watch(ctx context.Context, s *opened, f *kvFlags, prefix string) error {
	encoder := c.lines()
	for event, err := range kv.Watch(ctx, s.store, prefix) {
		switch {
		case ctx.Err() != nil:
			return nil // interrupted, as it is meant to end
		case err != nil && statusOf(err) == statusUnavailable:
			_, _ = fmt.Fprintln(c.err, "dynalock: "+err.Error())
			continue
		case err != nil:
			return err
		case event.Type != kv.EventSynced && !f.shown(event.Key):
			continue
		}
		line := eventRow{event.Type.String(), pairRow{Key: event.Key}}
		if event.Pair != nil {
			line.pairRow = pairRowOf(event.Pair)
		}
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
	return nil
}
