//! The choice holds for the process: these lines must be the only ones in it that choose.

use equivbench_instruction_set::{ChoiceError, InstructionSet, choose, current, products};

#[test]
fn a_process_chooses_once() {
    assert_eq!(choose("plain"), Ok(InstructionSet::Plain));
    assert_eq!(current(), InstructionSet::Plain);
    assert_eq!(
        choose("auto"),
        Ok(InstructionSet::Plain),
        "what is in force"
    );
    assert_eq!(choose(""), Ok(InstructionSet::Plain));
    assert_eq!(choose("plain"), Ok(InstructionSet::Plain));
    let wider = InstructionSet::widest();
    if wider != InstructionSet::Plain {
        let refused = choose(wider.name()).unwrap_err();
        assert!(matches!(refused, ChoiceError::Settled { .. }));
        assert!(refused.to_string().contains("chosen once for each process"));
    }
    assert!(!products(), "nobody has multiplied");
}
