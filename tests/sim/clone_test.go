package sim_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// cloneSession lets somebody else heartbeat a live session: a clone of its
// machine, with a beat of its own. From then on the session is dead for its
// owner (R2).
func cloneSession(a *actor, _ string) {
	w := a.w
	w.mu.Lock()
	defer w.mu.Unlock()
	live := map[string]string{}
	for name, row := range w.rows {
		if row.owner != nil && row.live && !row.dead() {
			live[w.aliasLocked(name)] = name
		}
	}
	if len(live) == 0 {
		return
	}
	aliases := slices.Sorted(maps.Keys(live))
	name := live[aliases[a.rng.IntN(len(aliases))]]
	row := w.rows[name]
	item, beat := maps.Clone(row.item), fmt.Sprintf("%016x", a.rng.Uint64())
	payload := strings.Replace(text(item["payload"]), row.beat, beat, 1)
	item["payload"] = &types.AttributeValueMemberS{Value: payload}
	item["version"] = &types.AttributeValueMemberN{Value: strconv.FormatUint(row.version+1, 10)}
	item["writer"] = &types.AttributeValueMemberS{Value: "clone" + beat}
	_, err := w.server.Client().PutItem(context.Background(),
		&dynamodb.PutItemInput{TableName: aws.String("table"), Item: item})
	if payload == text(row.item["payload"]) {
		err = errors.Join(err, errors.New("no beat in the payload"))
	}
	if err != nil {
		w.failLocked("harness", "%v", err)
	}
	row.foreign, row.beat = true, beat
	row.version++
	w.recordLocked(row.owner, "cloned", name, row.version)
}
