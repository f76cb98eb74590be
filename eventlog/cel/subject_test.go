package cel_test

import (
	"encoding/hex"
	"testing"

	"tallystick/eventlog/cel"
	"tallystick/rtmr"
)

func TestSubject(t *testing.T) {
	const prefix = `{"pcr": 15, "digests": [], "content_type": `
	imaNG := hex.EncodeToString(bin("05000000 61 62 3a 00 01  06000000") /* d-ng "ab:" 01 */) + hex.EncodeToString([]byte("/bin/\x00"))
	tests := []struct{ name, log, want string }{
		{"tcg_event", separatorJSON, "EV_SEPARATOR"},
		{"ima_entry", prefix + `"ima_template", "content": {"template_name": "ima-ng", "template_data": "` + imaNG + `"}}`, "/bin/"},
		{"ima_tlv", prefix + `"ima_tlv", "content": "01` + "00000002" + `ffff` + "00" + "00000003" + `2f6100"}`, "/a"},
		{"ima_tlv_without_a_path", prefix + `"ima_tlv", "content": "0100000001ff"}`, "ima_tlv"},
		{"ima_tlv_malformed", prefix + `"ima_tlv", "content": "00ffffffff"}`, "ima_tlv"},
		{"management", prefix + `"cel", "content": {"type": "state_trans", "data": 2}}`, "state_trans"},
		{"systemd_phase", prefix + `"systemd", "content": {"string": "enter-initrd"}}`, "enter-initrd"},
		{"systemd_file_system", prefix + `"systemd", "content": {"string": "file-system:/var:ext4:a:b"}}`, "file-system:/var"},
		{"systemd_machine_id", prefix + `"systemd", "content": {"string": "machine-id:0123"}}`, "machine-id"},
		{"nv_index", `{"nv_index": 30474752, "content_type": "systemd", "content": {"string": "product-id:x"}}`, "nv_index 0x01d10200 product-id"},
		{"cos_environment", prefix + `80, "content": "05` + "00000004" + hex.EncodeToString([]byte("A=bc")) + `"}`, "cos:env-var A"},
		{"cos_image", prefix + `80, "content": "00` + "00000002" + hex.EncodeToString([]byte("ab")) + `"}`, "cos:image-ref"},
		{"opaque", prefix + `200, "content": "0102"}`, "content-200"},
		{"unknown_name", prefix + `"tss2", "content": {"data": 1}}`, "tss2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			first(t, []byte(test.log), cel.JSON, func(m rtmr.Measurement) {
				if got := m.Entry.(*cel.Entry).Subject(); got != test.want {
					t.Errorf("got %q, expected %q", got, test.want)
				}
			})
		})
	}
}
