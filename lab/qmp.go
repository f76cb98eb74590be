//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// qmp has QEMU carry out one command, over its machine protocol
// (docs/interop/qmp-spec.rst): a greeting, capabilities, the command; each is
// answered by "return" or "error", with events between.
func (g *Guest) qmp(command string, arguments any) error {
	conn, err := net.Dial("unix", filepath.Join(g.dir, "qmp"))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	var greeting json.RawMessage
	if err := in.Decode(&greeting); err != nil {
		return fmt.Errorf("QMP: %w", err)
	}
	for _, request := range []map[string]any{
		{"execute": "qmp_capabilities"},
		{"execute": command, "arguments": arguments},
	} {
		if err := out.Encode(request); err != nil {
			return fmt.Errorf("QMP: %w", err)
		}
		for {
			var answer struct {
				Return json.RawMessage
				Error  *struct{ Desc string }
			}
			if err := in.Decode(&answer); err != nil {
				return fmt.Errorf("QMP: %w", err)
			}
			if answer.Error != nil {
				return fmt.Errorf("QMP: %s: %s", request["execute"], answer.Error.Desc)
			}
			if answer.Return != nil {
				break
			}
		}
	}
	return nil
}
