package quote

// openAzure opens a quote of an Azure VM's vTPM with the HCL report that stands
// for its key: the hardware signed a report over the key, the key signed the
// PCRs.
func openAzure(attest []byte, opts *Options) (*Quote, error) {
	if err := opts.only("an Azure vTPM's quote", "signature", "key", "hcl", "hardware", "collateral", "tdx-roots", "snp-roots"); err != nil {
		return nil, err
	}
	public, hcl, err := hclKey(opts)
	if err != nil {
		return nil, err
	}
	key, err := keyOf(public)
	if err != nil {
		return nil, err
	}
	chain := Link{Chain, Verified, "the key is the HCL report's HCLAkPub, which stands or falls with that report"}
	given, err := givenKey(opts)
	if err != nil {
		return nil, err
	}
	if given != nil && !given.equal(key) {
		chain = Link{Chain, Failed, "the key that was given is not the HCL report's HCLAkPub"}
	}
	q, err := openTPM(attest, opts.Signature, key, chain, opts)
	if err != nil {
		return nil, err
	}
	q.Kind, q.Version, q.Inside = Azure, hcl.Version, hcl
	return q, nil
}
