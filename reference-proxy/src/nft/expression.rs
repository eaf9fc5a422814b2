//! Rules as the kernel's expressions.
//!
//! `netlink-packet-netfilter` knows the common expressions; the others (`ct`, `numgen`, `nat`, `masq`, `reject`, `dynset`) are written as
//! plain attributes here. Numbers are those of `linux/netfilter/nf_tables.h`.

use netlink_packet_core::{DefaultNla, Nla as _};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
    Lookup, Meta, MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

use crate::ruleset::{Chain, Family, Field, Rule, Statement};

type Expression = ListAttribute<ExpressionAttribute>;

const NF_DROP: u32 = 0;
const NFT_LOOKUP_F_INV: u32 = 1;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_DIRECTION: u16 = 3;
const NFT_CT_STATE: u32 = 0;
const NFT_CT_STATUS: u32 = 2;
const NFT_CT_PROTO_DST: u32 = 12;
const NFT_CT_SRC_IP: u32 = 19;
const NFT_CT_DST_IP: u32 = 20;
const NFT_CT_SRC_IP6: u32 = 21;
const NFT_CT_DST_IP6: u32 = 22;
const CT_STATE_INVALID: u32 = 1;
const CT_STATE_NEW: u32 = 8;
const IPS_CONFIRMED: u32 = 1 << 3;
const IPS_DST_NAT: u32 = 1 << 5;

const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_SADDR: u32 = 1;
const RTN_LOCAL: u32 = 2;

const NFTA_NG_DREG: u16 = 1;
const NFTA_NG_MODULUS: u16 = 2;
const NFTA_NG_TYPE: u16 = 3;
const NFT_NG_RANDOM: u32 = 1;

const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFT_NAT_DNAT: u32 = 1;

const NFTA_MASQ_FLAGS: u16 = 1;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;

const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
const NFT_REJECT_TCP_RST: u32 = 1;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
const NFT_REJECT_ICMPX_PORT_UNREACH: u8 = 1;

const NFTA_DYNSET_SET_NAME: u16 = 1;
const NFTA_DYNSET_OP: u16 = 3;
const NFTA_DYNSET_SREG_KEY: u16 = 4;
const NFTA_DYNSET_SREG_DATA: u16 = 5;
const NFTA_DYNSET_TIMEOUT: u16 = 6;
const NFT_DYNSET_OP_UPDATE: u32 = 1;

/// The expressions of a rule.
pub(super) fn expressions(rule: &Rule) -> Vec<Expression> {
    let mut out = Vec::new();
    for statement in &rule.0 {
        push_statement(&mut out, statement);
    }
    out
}

/// The 32-bit register at `index`. Concatenations take one after another from the first, each field rounded up to whole registers.
fn register(index: u32) -> Register {
    Register::from(8 + index)
}

fn be32(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn be64(kind: u16, value: u64) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn byte(kind: u16, value: u8) -> DefaultNla {
    DefaultNla::new(kind, vec![value])
}

fn text(kind: u16, value: &str) -> DefaultNla {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    DefaultNla::new(kind, bytes)
}

fn other(name: &str, attributes: Vec<DefaultNla>) -> Expression {
    debug_assert!(attributes.iter().all(|a| a.value_len() < 256));
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes,
    }
    .into()
}

fn compare(bytes: Vec<u8>, op: Operator) -> Expression {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(register(0)),
        Cmp::Op(op),
        Cmp::Data(DataAttribute::Value(bytes)),
    ])
    .into()
}

/// Register 0 has one of these bits.
fn any_bit(out: &mut Vec<Expression>, bits: u32) {
    masked(out, bits);
    out.push(compare(vec![0; 4], Operator::NotEqual));
}

/// Register 0 has none of these bits.
fn no_bit(out: &mut Vec<Expression>, bits: u32) {
    masked(out, bits);
    out.push(compare(vec![0; 4], Operator::Equal));
}

fn masked(out: &mut Vec<Expression>, bits: u32) {
    out.push(
        Expressions::Bitwise(vec![
            Bitwise::SourceRegister(register(0)),
            Bitwise::DestinationRegister(register(0)),
            Bitwise::Length(4),
            Bitwise::Mask(DataAttribute::Value(bits.to_ne_bytes().to_vec())),
            Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
        ])
        .into(),
    );
}

fn ct(key: u32, to: Register, original: bool) -> Expression {
    let mut attributes = vec![be32(NFTA_CT_DREG, to.into()), be32(NFTA_CT_KEY, key)];
    if original {
        attributes.push(byte(NFTA_CT_DIRECTION, 0));
    }
    other("ct", attributes)
}

fn meta(key: MetaKey, to: Register) -> Expression {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(to)]).into()
}

fn payload(base: u32, offset: u32, len: u32, to: Register) -> Expression {
    Expressions::Payload(vec![
        Payload::DestinationRegister(to),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(len),
    ])
    .into()
}

fn address_registers(family: Family) -> u32 {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

/// Loads a field into the registers from `index` on; returns the index after it.
fn load(out: &mut Vec<Expression>, field: &Field, index: u32) -> u32 {
    let to = register(index);
    let (expression, registers) = match field {
        Field::Source(Family::V4) => (payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 4, to), 1),
        Field::Destination(Family::V4) => (payload(NFT_PAYLOAD_NETWORK_HEADER, 16, 4, to), 1),
        Field::Source(Family::V6) => (payload(NFT_PAYLOAD_NETWORK_HEADER, 8, 16, to), 4),
        Field::Destination(Family::V6) => (payload(NFT_PAYLOAD_NETWORK_HEADER, 24, 16, to), 4),
        Field::Protocol => (meta(MetaKey::L4Proto, to), 1),
        Field::SourcePort => (payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, to), 1),
        Field::DestinationPort => (payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, to), 1),
        Field::OriginalSource(Family::V4) => (ct(NFT_CT_SRC_IP, to, true), 1),
        Field::OriginalSource(Family::V6) => (ct(NFT_CT_SRC_IP6, to, true), 4),
        Field::OriginalDestination(Family::V4) => (ct(NFT_CT_DST_IP, to, true), 1),
        Field::OriginalDestination(Family::V6) => (ct(NFT_CT_DST_IP6, to, true), 4),
        Field::OriginalDestinationPort => (ct(NFT_CT_PROTO_DST, to, true), 1),
        Field::Random(below) => (
            other(
                "numgen",
                vec![
                    be32(NFTA_NG_DREG, to.into()),
                    be32(NFTA_NG_MODULUS, *below),
                    be32(NFTA_NG_TYPE, NFT_NG_RANDOM),
                ],
            ),
            1,
        ),
    };
    out.push(expression);
    index + registers
}

fn load_all(out: &mut Vec<Expression>, fields: &[Field]) -> u32 {
    fields
        .iter()
        .fold(0, |index, field| load(out, field, index))
}

fn lookup(set: String, to: Option<Register>, inverted: bool) -> Expression {
    let mut attributes = vec![Lookup::Set(set), Lookup::SourceRegister(register(0))];
    if let Some(to) = to {
        attributes.push(Lookup::DestinationRegister(to));
    }
    if inverted {
        attributes.push(Lookup::Flags(NFT_LOOKUP_F_INV));
    }
    Expressions::Lookup(attributes).into()
}

fn verdict(code: Verdict, chain: Option<Chain>) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(verdict_attributes(code, chain))),
    ])
    .into()
}

/// A verdict as rules and verdict maps carry it.
pub(super) fn verdict_attributes(code: Verdict, chain: Option<Chain>) -> Vec<VerdictAttribute> {
    let mut attributes = vec![VerdictAttribute::Code(code)];
    if let Some(chain) = chain {
        attributes.push(VerdictAttribute::Chain(chain.to_string()));
    }
    attributes
}

/// The verdict that drops a packet.
pub(super) fn drop_verdict() -> Verdict {
    Verdict::Other(NF_DROP)
}

fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

fn push_statement(out: &mut Vec<Expression>, statement: &Statement) {
    match statement {
        Statement::IsFamily(family) => {
            out.push(meta(MetaKey::Nfproto, register(0)));
            out.push(compare(vec![nfproto(*family)], Operator::Equal));
        }
        Statement::IsProtocol(protocol) => {
            out.push(meta(MetaKey::L4Proto, register(0)));
            out.push(compare(vec![protocol.number()], Operator::Equal));
        }
        Statement::IsNew => {
            out.push(ct(NFT_CT_STATE, register(0), false));
            any_bit(out, CT_STATE_NEW);
            out.push(ct(NFT_CT_STATUS, register(0), false));
            no_bit(out, IPS_CONFIRMED);
        }
        Statement::IsInvalid => {
            out.push(ct(NFT_CT_STATE, register(0), false));
            any_bit(out, CT_STATE_INVALID);
        }
        Statement::IsTranslated => {
            out.push(ct(NFT_CT_STATUS, register(0), false));
            any_bit(out, IPS_DST_NAT);
        }
        Statement::IsFromNode => {
            out.push(other(
                "fib",
                vec![
                    be32(NFTA_FIB_DREG, register(0).into()),
                    be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE),
                    be32(NFTA_FIB_FLAGS, NFTA_FIB_F_SADDR),
                ],
            ));
            out.push(compare(RTN_LOCAL.to_ne_bytes().to_vec(), Operator::Equal));
        }
        Statement::In(fields, set) => {
            load_all(out, fields);
            out.push(lookup(set.to_string(), None, false));
        }
        Statement::NotIn(fields, set) => {
            load_all(out, fields);
            out.push(lookup(set.to_string(), None, true));
        }
        Statement::Dispatch(fields, set) => {
            load_all(out, fields);
            out.push(lookup(set.to_string(), Some(Register::Verdict), false));
        }
        Statement::Translate(fields, set) => {
            load_all(out, fields);
            out.push(lookup(set.to_string(), Some(register(0)), false));
            let port = register(address_registers(set.family));
            out.push(other(
                "nat",
                vec![
                    be32(NFTA_NAT_TYPE, NFT_NAT_DNAT),
                    be32(NFTA_NAT_FAMILY, nfproto(set.family).into()),
                    be32(NFTA_NAT_REG_ADDR_MIN, register(0).into()),
                    be32(NFTA_NAT_REG_PROTO_MIN, port.into()),
                ],
            ));
        }
        Statement::Remember(fields, set, seconds) => {
            let data = load_all(out, fields);
            let after = load(out, &Field::Destination(set.family), data);
            load(out, &Field::DestinationPort, after);
            out.push(other(
                "dynset",
                vec![
                    text(NFTA_DYNSET_SET_NAME, &set.to_string()),
                    be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE),
                    be32(NFTA_DYNSET_SREG_KEY, register(0).into()),
                    be32(NFTA_DYNSET_SREG_DATA, register(data).into()),
                    be64(NFTA_DYNSET_TIMEOUT, u64::from(*seconds) * 1000),
                ],
            ));
        }
        Statement::Jump(chain) => out.push(verdict(Verdict::Jump, Some(*chain))),
        Statement::Goto(chain) => out.push(verdict(Verdict::Goto, Some(*chain))),
        Statement::Return => out.push(verdict(Verdict::Return, None)),
        Statement::Drop => out.push(verdict(drop_verdict(), None)),
        Statement::Reset => out.push(other(
            "reject",
            vec![
                be32(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST),
                byte(NFTA_REJECT_ICMP_CODE, 0),
            ],
        )),
        Statement::Unreachable => out.push(other(
            "reject",
            vec![
                be32(NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH),
                byte(NFTA_REJECT_ICMP_CODE, NFT_REJECT_ICMPX_PORT_UNREACH),
            ],
        )),
        Statement::Masquerade => out.push(other(
            "masq",
            vec![be32(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY)],
        )),
    }
}
