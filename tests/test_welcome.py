from iris.welcome import welcome

SECRET = "esk_test_" + "a" * 32


def test_a_new_key_is_shown_with_its_file(tmp_path):
    file = tmp_path / "first-key"
    file.write_text(SECRET)
    text = welcome("http://localhost:3000", file, SECRET)
    assert text.count(SECRET) == 1
    assert str(file) in text
    assert "http://localhost:3000/v1/images/generations" in text


def test_a_key_that_was_there_is_never_shown_again(tmp_path):
    file = tmp_path / "first-key"
    file.write_text(SECRET)
    text = welcome("http://localhost:3000", file, None)
    assert SECRET not in text
    assert f"$(cat {file})" in text


def test_without_a_key_file_it_says_how_to_make_a_key(tmp_path):
    text = welcome("http://localhost:3000", tmp_path / "first-key", None)
    assert "iris keys create" in text
    assert "$(cat" not in text


def test_a_home_with_a_space_still_gives_a_command_that_runs(tmp_path):
    file = tmp_path / "my home" / "first-key"
    file.parent.mkdir()
    file.write_text(SECRET)
    assert f"$(cat '{file}')" in welcome("http://localhost:3000", file, None)
